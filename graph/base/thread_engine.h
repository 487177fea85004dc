// thread_engine.h - files by plain system calls on threads, where io_uring is forbidden or
// unwanted.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <string>

#include "graph/base/engine.h"

// Used by one thread, the one that runs the coroutines that call it. `why` is told with its name:
// "io_uring: Operation not permitted". Its destructor waits for calls that are under way.
std::unique_ptr<Engine> make_thread_engine(const std::string& why = "");
