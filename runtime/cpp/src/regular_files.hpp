// Reading files that a stranger may have made: regular files only, and never more bytes than expected.
//
// A FIFO blocks whoever opens it until somebody writes, a device has no end, and a file may grow while it is read. So a
// file is opened without blocking, its kind is taken from the descriptor that is read, and the size is checked on what
// arrives.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace align {

// A regular file, open for reading; a link is followed.
class RegularFile {
public:
    // Throws BundleError where `path` does not exist, cannot be opened, or is a folder, FIFO, socket or device.
    explicit RegularFile(const std::string &path);
    ~RegularFile();
    RegularFile(const RegularFile &) = delete;
    RegularFile &operator=(const RegularFile &) = delete;

    // The size in bytes when it was opened.
    std::size_t size() const { return size_; }

    // Reads up to `count` bytes into `buffer`; returns how many, 0 at the end.
    std::size_t read(char *buffer, std::size_t count);

private:
    friend class MappedFile;
    std::string path_;
    int descriptor_;
    std::size_t size_;
};

// The content of a regular file in memory, mapped.
class MappedFile {
public:
    // Throws BundleError as RegularFile, and where the file is empty.
    explicit MappedFile(const std::string &path);
    ~MappedFile();
    MappedFile(const MappedFile &) = delete;
    MappedFile &operator=(const MappedFile &) = delete;

    std::string_view content() const { return {start_, size_}; }

private:
    const char *start_;
    std::size_t size_;
};

// The content of the regular file `path`. Throws BundleError as RegularFile, and for more than `max_bytes` bytes.
std::string read_regular(const std::string &path, std::size_t max_bytes);

} // namespace align
