#include "graph/permissions.h"

#include <utility>

namespace graph {

using enum Permission;

std::string Permissions::text() const {
  std::string result;
  for (const auto& [permission, name] : {std::pair{consistent_read, "consistent read"},
                                         {write, "write"},
                                         {write_unchanged, "write unchanged"},
                                         {resize, "resize"}}) {
    if (!has(permission)) continue;
    if (!result.empty()) result += ", ";
    result += name;
  }
  return result;
}

std::string_view to_string(Role role) {
  switch (role) {
    case Role::filtered:
      return "filtered";
    case Role::image:
      return "image";
    case Role::data:
      return "data";
    case Role::metadata:
      return "metadata";
    case Role::backing:
      return "backing";
    case Role::window:
      return "window";
  }
  return "";
}

Access child_access(Role role, Access own, Writable writable) {
  switch (role) {
    case Role::filtered:
    case Role::window:
      return own;          // P-3
    case Role::backing: {  // P-4
      const Permissions always = consistent_read | write_unchanged;
      const bool lenient = own.shared.has(write);
      return {own.taken & consistent_read, lenient ? always | write | resize : always};
    }
    case Role::metadata:
    case Role::image: {  // P-5; what holds for metadata also covers the data beside it
      Permissions taken = own.taken | consistent_read;
      if (taken.has(write_unchanged)) taken = taken.without(write_unchanged) | write;
      if (writable == Writable::yes) taken = taken | write;
      if (taken.has(write)) taken = taken | resize;
      return {taken, own.shared.without(write | resize)};
    }
    case Role::data: {  // P-6
      Permissions taken = own.taken;
      if (taken.has(write_unchanged)) taken = taken.without(write_unchanged) | write;
      if (taken.has(write)) taken = taken | resize;
      return {taken, own.shared.without(resize)};
    }
  }
  return own;
}

}  // namespace graph
