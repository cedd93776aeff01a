#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "processors.hpp"

namespace {

using namespace align;
namespace fs = std::filesystem;

// A file system with the files of control groups.
class Processors : public testing::Test {
protected:
    Processors() : root(fs::temp_directory_path() / ("align-processors-" + std::to_string(getpid()))) {}
    ~Processors() override { fs::remove_all(root); }

    void write(const std::string &path, const std::string &content) const {
        fs::create_directories((root / path).parent_path());
        std::ofstream(root / path) << content;
    }

    fs::path root;
};

TEST_F(Processors, AreAtLeastOne) {
    EXPECT_GE(available_cores(), 1);
}

TEST_F(Processors, WithoutControlGroupsAreThoseOfTheMachine) {
    EXPECT_EQ(available_cores(root), available_cores("/none"));
}

TEST_F(Processors, OfVersion2HaveTheSmallestQuotaOfTheHierarchy) {
    write("proc/self/cgroup", "0::/a/b\n");
    write("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup\\040x rw - cgroup2 cgroup2 rw\n");
    write("sys/fs/cgroup x/a/b/cpu.max", "max 100000\n");
    EXPECT_EQ(available_cores(root), available_cores("/none"));
    write("sys/fs/cgroup x/a/cpu.max", "50000 100000\n");
    EXPECT_EQ(available_cores(root), 1);
}

TEST_F(Processors, OfVersion1HaveAQuotaBelowTheGroupThatIsMounted) {
    write("proc/self/cgroup", "3:cpu,cpuacct:/docker/x/y\n2:memory:/docker/x/y\n");
    write("proc/self/mountinfo", "31 23 0:27 /docker/x /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
    write("sys/fs/cgroup/cpu/y/cpu.cfs_quota_us", "-1\n");
    write("sys/fs/cgroup/cpu/y/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(available_cores(root), available_cores("/none"));
    write("sys/fs/cgroup/cpu/y/cpu.cfs_quota_us", "90000\n");
    EXPECT_EQ(available_cores(root), 1);
}

} // namespace
