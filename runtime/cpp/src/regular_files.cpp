#include "regular_files.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.hpp"
#include "foreign_text.hpp"

namespace align {

namespace {

constexpr std::size_t CHUNK = 1 << 20;

std::string reason(int code) {
    char buffer[128];
    return strerror_r(code, buffer, sizeof buffer); // glibc's own, which returns the text
}

} // namespace

RegularFile::RegularFile(const std::string &path) : path_(path), descriptor_(-1), size_(0) {
    descriptor_ = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor_ < 0) {
        const int code = errno;
        throw BundleError(path + (code == ENOENT ? " does not exist" : " cannot be read: " + reason(code)));
    }
    struct stat status {};
    if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(descriptor_);
        throw BundleError(path + " is not a regular file; expected one, or a link to one");
    }
    size_ = static_cast<std::size_t>(status.st_size);
}

RegularFile::~RegularFile() {
    close(descriptor_);
}

std::size_t RegularFile::read(char *buffer, std::size_t count) {
    ssize_t got;
    do
        got = ::read(descriptor_, buffer, count);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        throw BundleError(path_ + " cannot be read: " + reason(errno));
    return static_cast<std::size_t>(got);
}

MappedFile::MappedFile(const std::string &path) : start_(nullptr), size_(0) {
    const RegularFile file(path);
    size_ = file.size();
    if (size_ == 0)
        throw BundleError(path + " is empty; expected an ONNX graph");
    void *mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor_, 0);
    if (mapped == MAP_FAILED) {
        if (errno == ENOMEM)
            throw std::bad_alloc();
        throw BundleError(path + " cannot be read: " + reason(errno));
    }
    start_ = static_cast<const char *>(mapped);
}

MappedFile::~MappedFile() {
    munmap(const_cast<char *>(start_), size_);
}

std::string read_regular(const std::string &path, std::size_t max_bytes) {
    RegularFile file(path);
    std::string content;
    if (file.size() <= max_bytes) {
        content.reserve(file.size());
        std::string chunk(std::min(CHUNK, max_bytes + 1), '\0');
        while (content.size() <= max_bytes) {
            const std::size_t got = file.read(chunk.data(), chunk.size());
            if (got == 0)
                break;
            content.append(chunk, 0, got);
        }
    }
    if (std::max(file.size(), content.size()) > max_bytes)
        throw BundleError(path + " has " + std::to_string(std::max(file.size(), content.size())) +
                          " bytes; expected at most " + std::to_string(max_bytes));
    return content;
}

} // namespace align
