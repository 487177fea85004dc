// Random graphs, and random users that come, go and are moved, against the rules P-1 to P-8 written
// down again in the plainest way: everything is worked out anew from nothing, right by right.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "graph/transaction.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/seed.h"

namespace {

using graph::Access;
using graph::Edge;
using graph::Permission;
using graph::Permissions;
using graph::Role;

constexpr std::array rights{Permission::consistent_read, Permission::write,
                            Permission::write_unchanged, Permission::resize};
constexpr std::uint64_t disk_size = 512;

// A node with any children; does nothing.
template <class Base>
class Joint final : public Base {
 public:
  explicit Joint(std::vector<std::unique_ptr<Edge>> children)
    requires std::same_as<Base, graph::Node>
      : children_(std::move(children)) {
    for (const auto& child : children_) this->own(*child);
  }
  // The first child is the filtered one.
  explicit Joint(std::vector<std::unique_ptr<Edge>> children)
    requires std::same_as<Base, graph::Filter>
      : Base(std::move(*children.front())), children_(std::move(children)) {
    children_.erase(children_.begin());
    for (const auto& child : children_) this->own(*child);
  }
  std::uint64_t own_size() const override { return disk_size; }
  graph::Growth growth() const override { return graph::Growth::yes; }
  Task<> read(std::uint64_t, const Buffers&) override { return succeeded(); }

 private:
  std::vector<std::unique_ptr<Edge>> children_;
};

// What the rules say.
class Model {
 public:
  struct Child {
    int node;
    Role role;
  };
  struct Node {
    bool read_only = false;
    bool filter = false;
    std::vector<Child> children;
  };
  struct User {
    int node;
    Access access;
  };
  std::map<int, Node> nodes;
  std::map<int, User> users;

  enum class Verdict : std::uint8_t { fine, conflict, read_only };
  // Everything that is wrong with the graph as it stands, the accesses of all children by the way.
  std::set<Verdict> judge() {
    accesses.clear();
    std::set<Verdict> wrong;
    for (const int node : parents_first()) {
      const std::vector<Access> parents = parents_of(node);
      if (!agree(parents)) wrong.insert(Verdict::conflict);
      const bool written =
          any_takes(parents, Permission::write) || any_takes(parents, Permission::write_unchanged);
      if (nodes[node].read_only && written) wrong.insert(Verdict::read_only);
      for (std::size_t i = 0; i < nodes[node].children.size(); ++i) {
        accesses[{node, i}] = access_to(nodes[node], nodes[node].children[i].role, parents);
      }
    }
    return wrong;
  }
  std::map<std::pair<int, std::size_t>, Access> accesses;  // by parent and number of the child

  bool reaches(int from, int target) const {
    if (from == target) return true;
    return std::ranges::any_of(nodes.at(from).children,
                               [&](const Child& child) { return reaches(child.node, target); });
  }
  bool is_used(int node) const {
    const auto names = [&](const Child& child) { return child.node == node; };
    return std::ranges::any_of(users, [&](auto& each) { return each.second.node == node; }) ||
           std::ranges::any_of(
               nodes, [&](auto& each) { return std::ranges::any_of(each.second.children, names); });
  }

 private:
  // A node comes when all its parents have.
  std::vector<int> parents_first() const {
    std::vector<int> order;
    while (order.size() < nodes.size()) {
      for (const auto& [node, unused] : nodes) {
        if (std::ranges::find(order, node) != order.end()) continue;
        const bool ready = std::ranges::all_of(nodes, [&](const auto& other) {
          const bool is_parent = std::ranges::any_of(
              other.second.children, [&](const Child& child) { return child.node == node; });
          return !is_parent || std::ranges::find(order, other.first) != order.end();
        });
        if (ready) order.push_back(node);
      }
    }
    return order;
  }
  std::vector<Access> parents_of(int node) const {
    std::vector<Access> parents;
    for (const auto& [number, user] : users) {
      if (user.node == node) parents.push_back(user.access);
    }
    for (const auto& [where, access] : accesses) {
      if (nodes.at(where.first).children[where.second].node == node) parents.push_back(access);
    }
    return parents;
  }
  static bool agree(const std::vector<Access>& parents) {  // P-1
    for (std::size_t i = 0; i < parents.size(); ++i) {
      for (std::size_t j = 0; j < parents.size(); ++j) {
        for (const Permission right : rights) {
          if (i != j && parents[i].taken.has(right) && !parents[j].shared.has(right)) return false;
        }
      }
    }
    return true;
  }
  static bool any_takes(const std::vector<Access>& parents, Permission right) {  // P-2
    return std::ranges::any_of(parents, [&](const Access& each) { return each.taken.has(right); });
  }
  static bool all_share(const std::vector<Access>& parents, Permission right) {
    return std::ranges::all_of(parents, [&](const Access& each) { return each.shared.has(right); });
  }
  static Access access_to(const Node& node, Role role, const std::vector<Access>& parents) {
    Access result{Permissions::none(), Permissions::none()};
    for (const Permission right : rights) {
      if (takes(node, role, right, parents)) result.taken = result.taken | right;
      if (shares(role, right, parents)) result.shared = result.shared | right;
    }
    return result;
  }
  static bool takes(const Node& node, Role role, Permission right,
                    const std::vector<Access>& parents) {
    const bool asked = any_takes(parents, right);
    if (role == Role::filtered || role == Role::window) return asked;                 // P-3
    if (role == Role::backing) return asked && right == Permission::consistent_read;  // P-4
    const bool stores_metadata = role == Role::metadata || role == Role::image;
    const bool written = any_takes(parents, Permission::write) ||
                         any_takes(parents, Permission::write_unchanged) ||
                         (stores_metadata && !node.read_only);
    switch (right) {  // P-5, P-6
      case Permission::consistent_read:
        return asked || stores_metadata;
      case Permission::write:
        return written;
      case Permission::write_unchanged:
        return false;
      case Permission::resize:
        return asked || written;
    }
    return false;
  }
  static bool shares(Role role, Permission right, const std::vector<Access>& parents) {
    const bool borne = all_share(parents, right);
    switch (role) {
      case Role::filtered:
      case Role::window:
        return borne;
      case Role::backing:  // whoever bears other writers bears what they do to the layer below
        return right == Permission::consistent_read || right == Permission::write_unchanged ||
               all_share(parents, Permission::write);
      case Role::metadata:
      case Role::image:
        return borne && right != Permission::write && right != Permission::resize;
      case Role::data:
        return borne && right != Permission::resize;
    }
    return false;
  }
};

class Trial {
 public:
  explicit Trial(std::uint64_t seed) : bench_(seed), random_(seed) {
    for (int i = 0; i < 3; ++i) add_node();
  }
  ~Trial() {
    held_.clear();
    edges_.clear();
    for (auto& [number, view] : views_) EXPECT_OK(bench_.run(bench_.graph.detach(std::move(view))));
  }

  void operations(unsigned count) {
    for (unsigned i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      switch (draw(8)) {
        case 0:
        case 1:
          add_node();
          break;
        case 2:
          remove_node();
          break;
        case 3:
        case 4:
          add_user();
          break;
        case 5:
          remove_user();
          break;
        default:
          move_child();
      }
      compare();
    }
  }
  unsigned accepted = 0;
  unsigned refused = 0;

 private:
  std::size_t draw(std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_);
  }
  bool chance(std::size_t one_in) { return draw(one_in) == 0; }
  static std::string name_of(int node) { return "n" + std::to_string(node); }
  template <class T>
  int any_key(const std::map<int, T>& of) {
    return std::next(of.begin(), static_cast<std::ptrdiff_t>(draw(of.size())))->first;
  }
  Permissions any_rights(std::size_t density) {
    Permissions result;
    for (const Permission right : rights) {
      if (draw(4) < density) result = result | right;
    }
    return result;
  }

  // `done` must be what the model says of `changed`, which is then the model.
  template <class T>
  bool judge(const char* what, Model changed, const Result<T>& done, bool possible = true) {
    const std::set<Model::Verdict> wrong = changed.judge();
    const bool fine = possible && wrong.empty();
    EXPECT_EQ(fine, done.has_value())
        << what << ": " << (done ? std::string("accepted") : done.error().message);
    if (!done && possible) {
      const bool expected =
          (done.error().code == Errc::busy && wrong.contains(Model::Verdict::conflict)) ||
          (done.error().code == Errc::read_only && wrong.contains(Model::Verdict::read_only));
      EXPECT_TRUE(expected) << what << ": " << done.error().message;
    }
    if (done) model_ = std::move(changed);
    ++(done ? accepted : refused);
    return done.has_value();
  }

  Model::Node any_node() {
    Model::Node node;
    node.read_only = chance(5);
    if (model_.nodes.empty() || chance(4)) return node;
    node.filter = chance(3);
    if (node.filter) node.children.push_back({any_key(model_.nodes), Role::filtered});
    bool has_backing = false;
    for (std::size_t more = node.filter ? draw(4) / 3 : 1 + draw(3); more > 0; --more) {
      constexpr std::array roles{Role::image, Role::data, Role::metadata, Role::window,
                                 Role::backing};
      const Role role = roles[draw(roles.size())];
      if (role == Role::backing && (has_backing || node.filter)) continue;
      has_backing = has_backing || role == Role::backing;
      node.children.push_back({any_key(model_.nodes), role});
    }
    return node;
  }

  void add_node() {
    if (model_.nodes.size() >= 12) return;
    const int number = next_++;
    Model changed = model_;
    const Model::Node node = changed.nodes[number] = any_node();
    std::vector<std::unique_ptr<Edge>> children;
    std::vector<Edge*> edges;
    for (const Model::Child& child : node.children) {
      children.push_back(std::make_unique<Edge>("c" + std::to_string(children.size()), child.role,
                                                held_[child.node]));
      edges.push_back(children.back().get());
    }
    std::unique_ptr<graph::Node> made;
    if (node.filter) {
      auto filter = std::make_unique<Joint<graph::Filter>>(std::move(children));
      edges.front() = &filter->file();
      made = std::move(filter);
    } else {
      made = std::make_unique<Joint<graph::Node>>(std::move(children));
    }
    graph::CommonOptions common;
    common.read_only = node.read_only;
    auto placed = bench_.run(
        bench_.graph.insert(name_of(number), test::test_driver, common, std::move(made)));
    if (!judge("add", std::move(changed), placed)) return;
    held_[number] = *placed;
    edges_[number] = std::move(edges);
  }

  void remove_node() {
    if (model_.nodes.size() < 2) return;
    const int number = any_key(model_.nodes);
    if (model_.is_used(number)) {
      EXPECT_EQ(test::code_of(bench_.run(bench_.graph.remove(name_of(number)))), Errc::busy);
      return;
    }
    Model changed = model_;
    changed.nodes.erase(number);
    edges_.erase(number);
    held_.erase(number);
    judge("remove", std::move(changed), bench_.run(bench_.graph.remove(name_of(number))));
  }

  void add_user() {
    if (views_.size() >= 8) return;
    const int number = next_++;
    const int node = any_key(model_.nodes);
    graph::ViewOptions options("user " + std::to_string(number));
    options.policy = graph::RangePolicy::growable;
    options.access = Access{any_rights(2), any_rights(4)};
    if (chance(3)) options.access.shared = any_rights(3);
    Model changed = model_;
    changed.users[number] = {node, options.access};
    auto attached = bench_.run(bench_.graph.attach(held_[node], std::move(options)));
    if (judge("attach", std::move(changed), attached)) views_[number] = *std::move(attached);
  }

  void remove_user() {
    if (views_.empty()) return;
    const int number = any_key(views_);
    Model changed = model_;
    changed.users.erase(number);
    auto view = std::move(views_.at(number));
    views_.erase(number);
    judge("detach", std::move(changed), bench_.run(bench_.graph.detach(std::move(view))));
  }

  void move_child() {
    const int number = any_key(model_.nodes);
    if (edges_[number].empty()) return;
    const std::size_t child = draw(edges_[number].size());
    const int target = any_key(model_.nodes);
    Model changed = model_;
    const bool possible = !model_.reaches(target, number);  // G-1
    if (possible) changed.nodes[number].children[child].node = target;
    graph::Transaction change(bench_.graph);
    change.replace_child(*edges_[number][child], held_[target]);
    judge("move", std::move(changed), bench_.run(change.commit()), possible);
  }

  void compare() {
    EXPECT_TRUE(model_.judge().empty());
    for (const auto& [where, access] : model_.accesses) {
      const Edge& edge = *edges_.at(where.first).at(where.second);
      EXPECT_EQ(edge.access().taken, access.taken)
          << name_of(where.first) << " -> " << edge.name() << ": takes '"
          << edge.access().taken.text() << "', not '" << access.taken.text() << "'";
      EXPECT_EQ(edge.access().shared, access.shared)
          << name_of(where.first) << " -> " << edge.name() << ": shares '"
          << edge.access().shared.text() << "', not '" << access.shared.text() << "'";
      EXPECT_EQ(edge.node().name(),
                name_of(model_.nodes.at(where.first).children[where.second].node));
    }
  }

  test::Bench bench_;
  std::mt19937_64 random_;
  Model model_;
  int next_ = 0;
  std::map<int, std::shared_ptr<graph::Node>> held_;
  std::map<int, std::vector<Edge*>> edges_;
  std::map<int, std::unique_ptr<test::View>> views_;
};

TEST(PermissionModel, AgreesAboutEveryChangeOfRandomGraphs) {
  const std::uint64_t first = test::seed();
  unsigned accepted = 0;
  unsigned refused = 0;
  for (std::uint64_t seed = first; seed < first + 300 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial trial(seed);
    trial.operations(80);
    accepted += trial.accepted;
    refused += trial.refused;
  }
  EXPECT_GT(accepted, 5 * 300U);  // or it proves little
  EXPECT_GT(refused, 5 * 300U);
}

}  // namespace
