// A small HTTP service with many threads: serve BUNDLE [PORT]. It needs cpp-httplib (Debian: libcpp-httplib-dev).
//
//     curl -d 'a photo of a cat' localhost:8080/texts          one text a line
//     curl --data-binary @cat.jpg localhost:8080/image         a JPEG or PNG file
//
// An answer is {"embeddings": [[...], ...]}; an error is {"error": "..."} with status 400 for an input, else 500.
#include <align_runtime.hpp>

#include <httplib.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <sstream>

namespace {

// Lets a few calls in at a time: more share the same processors, and each takes longer.
class Limit {
public:
    explicit Limit(int free) : free_(free) {}

    template <typename Work> auto operator()(const Work &work) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return free_ > 0; });
        --free_;
        lock.unlock();
        struct Leave {
            Limit &limit;
            ~Leave() {
                const std::lock_guard held(limit.mutex_);
                ++limit.free_;
                limit.changed_.notify_one();
            }
        } leave{*this};
        return work();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int free_;
};

std::string json(const align_runtime::Matrix &rows) {
    std::ostringstream text;
    text.precision(9);
    text << "{\"embeddings\": [";
    for (std::size_t row = 0; row < rows.rows(); ++row) {
        text << (row == 0 ? "[" : ", [");
        for (std::size_t i = 0; i < rows.dim(); ++i)
            text << (i == 0 ? "" : ", ") << rows[row][i];
        text << "]";
    }
    text << "]}\n";
    return text.str();
}

std::string escaped(const std::string &message) {
    std::string result;
    for (const char character : message) // an error has no control characters
        result += (character == '"' || character == '\\' ? "\\" : "") + std::string(1, character);
    return result;
}

template <typename Work> void answer(httplib::Response &response, const Work &work) {
    try {
        response.set_content(json(work()), "application/json");
    } catch (const align_runtime::Error &error) {
        response.status = error.status() == ALIGN_ERROR_INPUT ? 400 : 500;
        response.set_content("{\"error\": \"" + escaped(error.what()) + "\"}\n", "application/json");
    }
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 2)
        return std::fputs("usage: serve BUNDLE [PORT]\n", stderr), 2;
    try {
        const align_runtime::Model model(argv[1]);
        Limit limit(2);
        httplib::Server server;
        server.set_payload_max_length(64 << 20);
        server.Post("/texts", [&](const httplib::Request &request, httplib::Response &response) {
            answer(response, [&] {
                std::vector<std::string> texts;
                std::istringstream lines(request.body);
                for (std::string line; std::getline(lines, line);)
                    texts.push_back(line);
                return limit([&] { return model.embed_texts(texts); });
            });
        });
        server.Post("/image", [&](const httplib::Request &request, httplib::Response &response) {
            answer(response, [&] {
                const auto *data = reinterpret_cast<const std::uint8_t *>(request.body.data());
                return limit([&] { return model.embed_encoded({{data, request.body.size()}}); });
            });
        });
        const int port = argc > 2 ? std::atoi(argv[2]) : 8080;
        const int bound = port == 0 ? server.bind_to_any_port("127.0.0.1") : port;
        if (port != 0 && !server.bind_to_port("127.0.0.1", port))
            return std::fprintf(stderr, "port %d is not free\n", port), 1;
        std::printf("http://127.0.0.1:%d\n", bound);
        std::fflush(stdout);
        server.listen_after_bind();
    } catch (const align_runtime::Error &error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
}
