// Handles: what the C API gives out in place of pointers, so that a call with a closed model is an error and not a
// crash.
#pragma once

#include <memory>
#include <shared_mutex>

#include "align_runtime.h"
#include "model.hpp"

namespace align {

// A model with the lock that its calls share and that closing takes alone.
struct OpenModel {
    OpenModel(const std::string &bundle, const LoadOptions &options) : model(bundle, options) {}

    Model model;
    std::shared_mutex in_use;
    bool closed = false;
};

// A call that is inside of a model, which stays open until the call has ended.
class Use {
public:
    // Throws ConfigurationError where `handle` is NULL, closed or no model, or was opened before a fork.
    explicit Use(const align_model *handle);

    const Model &operator*() const { return open_->model; }
    const Model *operator->() const { return &open_->model; }

private:
    std::shared_ptr<OpenModel> open_;
    std::shared_lock<std::shared_mutex> lock_;
};

// A new handle. It is never used again, and it is no address.
align_model *add_handle(std::shared_ptr<OpenModel> open);

// Lets no further call in, waits for those inside, and frees the model. Does nothing for a handle that is not open, and
// in a forked child.
void close_handle(align_model *handle);

} // namespace align
