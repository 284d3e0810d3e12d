// The fake driver's graphs of kernel launches: the graph that nodes are added to, and the instantiated graph.
#include <algorithm>
#include <cstdio>

#include "internals.h"

namespace fake_driver {
namespace {

struct Node {
  Launch launch;
  std::vector<const Node*> after;
};
struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;
};
struct Executable {
  // In execution order.
  std::vector<std::pair<const Node*, Launch>> launches;
};

std::set<Graph*> graphs;
std::set<Executable*> executables;

// As CUDA_KERNEL_NODE_PARAMS_v2 of the driver.
struct NodeParameters {
  void* function;
  unsigned grid[3], threads[3], shared_bytes;
  void** parameters;
  void** extra;
  void* kernel;
  void* context;
};

int read_node(Launch* out, const NodeParameters& described) {
  if (!described.function || described.extra || described.kernel) return INVALID_VALUE;
  return read_launch(out, described.function, described.grid, described.threads, described.shared_bytes,
                     described.parameters);
}

bool has_node(const Graph& graph, const Node* node) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [node](const auto& one) { return one.get() == node; });
}

// The latest order that edges allow: of the ready nodes, the one that was added last. Independent nodes run in the reverse
// order of their creation.
std::vector<std::pair<const Node*, Launch>> last_order(const Graph& graph) {
  std::vector<std::pair<const Node*, Launch>> order;
  std::set<const Node*> done;
  while (order.size() < graph.nodes.size()) {
    for (size_t i = graph.nodes.size(); i-- > 0;) {
      const Node* node = graph.nodes[i].get();
      const bool may_run = !done.count(node) && std::all_of(node->after.begin(), node->after.end(),
                                                            [&](const Node* before) { return done.count(before); });
      if (may_run) {
        done.insert(node);
        order.emplace_back(node, node->launch);
        break;
      }
    }
  }
  return order;
}

}  // namespace

size_t leaked_graphs() {
  const size_t left = graphs.size() + executables.size();
  if (left) fprintf(stderr, "fake driver: %zu graphs leaked\n", left);
  return left;
}

void free_all_graphs() {
  for (Graph* graph : graphs) delete graph;
  for (Executable* executable : executables) delete executable;
  graphs.clear();
  executables.clear();
}

}  // namespace fake_driver

using namespace fake_driver;

API int cuGraphCreate(void** graph, unsigned flags) {
  ENTER;
  if (flags != 0) return INVALID_VALUE;
  if (!settings.graphs) return NOT_SUPPORTED;
  *graph = *graphs.insert(new Graph()).first;
  return SUCCESS;
}
API int cuGraphAddKernelNode_v2(void** node, void* graph, const void* const* after, size_t n_after,
                                const void* described) {
  ENTER;
  auto* extended = static_cast<Graph*>(graph);
  if (!graphs.count(extended)) return INVALID_VALUE;
  auto added = std::make_unique<Node>();
  for (size_t i = 0; i < n_after; i++) {
    added->after.push_back(static_cast<const Node*>(after[i]));
    if (!has_node(*extended, added->after.back())) return INVALID_VALUE;
  }
  if (int error = read_node(&added->launch, *static_cast<const NodeParameters*>(described))) return error;
  *node = added.get();
  extended->nodes.push_back(std::move(added));
  return SUCCESS;
}
API int cuGraphInstantiateWithFlags(void** executable, void* graph, uint64_t flags) {
  ENTER;
  if (!graphs.count(static_cast<Graph*>(graph)) || flags != 0) return INVALID_VALUE;
  *executable = *executables.insert(new Executable{last_order(*static_cast<Graph*>(graph))}).first;
  counts["graphs made"]++;
  return SUCCESS;
}
API int cuGraphExecKernelNodeSetParams_v2(void* executable, void* node, const void* described) {
  ENTER;
  auto* changed = static_cast<Executable*>(executable);
  const auto* named = static_cast<const Node*>(node);
  const bool is_there =
      std::any_of(graphs.begin(), graphs.end(), [named](const Graph* graph) { return has_node(*graph, named); });
  if (!executables.count(changed) || !is_there) return INVALID_VALUE;
  if (!settings.updates) return GRAPH_EXEC_UPDATE_FAILURE;
  for (auto& [added, launch] : changed->launches) {
    if (added != named) continue;
    counts["changed"]++;
    return read_node(&launch, *static_cast<const NodeParameters*>(described));
  }
  return INVALID_VALUE;
}
API int cuGraphLaunch(void* executable, void* stream) {
  ENTER;
  auto* launched = static_cast<Executable*>(executable);
  if (!executables.count(launched)) return INVALID_VALUE;
  counts["graphs"]++;
  // Later updates affect later launches.
  work_of(stream).push_back([launches = launched->launches] {
    for (const auto& [node, launch] : launches) execute(launch);
  });
  return SUCCESS;
}
API int cuGraphExecDestroy(void* executable) {
  LOCK;
  if (!executables.erase(static_cast<Executable*>(executable))) return INVALID_VALUE;
  delete static_cast<Executable*>(executable);
  return SUCCESS;
}
API int cuGraphDestroy(void* graph) {
  LOCK;
  if (!graphs.erase(static_cast<Graph*>(graph))) return INVALID_VALUE;
  delete static_cast<Graph*>(graph);
  return SUCCESS;
}
