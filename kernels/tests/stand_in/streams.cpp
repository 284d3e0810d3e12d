// The stand-in's streams and events: work in queues, run when the host waits for it and no earlier.
#include "internals.h"

namespace stand_in {
namespace {

constexpr int STREAMS_OF_A_DEVICE = 3;

struct Event {
  std::shared_ptr<Record> latest;  // none before it is recorded
};

std::set<Stream*> streams;

}  // namespace

void run(Stream* stream, const Record* until) {
  const bool was_running = stream->running;
  stream->running = true;
  if (settings.others) {
    const std::set<Stream*> all = streams;
    for (Stream* other : all) {
      if (!other->running) run(other);
    }
  }
  while (!stream->work.empty() && !(until && until->over)) {
    const auto work = std::move(stream->work.front());
    stream->work.pop_front();
    work();
  }
  stream->running = was_running;
}

void run_all() {
  const std::set<Stream*> all = streams;
  for (Stream* stream : all) run(stream);
}

void forget_work() {
  for (Stream* stream : streams) stream->work.clear();
}

std::deque<std::function<void()>>& work_of(void* stream) { return static_cast<Stream*>(stream)->work; }

}  // namespace stand_in

using namespace stand_in;

API int cuStreamCreate(void** created, unsigned) {
  ENTER;
  auto* stream = new Stream();
  stream->number = static_cast<int>(streams.size()) % STREAMS_OF_A_DEVICE;
  *created = *streams.insert(stream).first;
  return SUCCESS;
}
API int cuStreamSynchronize(void* stream) {
  ENTER;
  run(static_cast<Stream*>(stream));
  return broken_by;
}
API int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ENTER;
  if (static_cast<Stream*>(stream)->number == settings.deaf) return SUCCESS;
  // What the event stands for now, whatever it is recorded for later.
  if (std::shared_ptr<Record> record = static_cast<Event*>(event)->latest) {
    work_of(stream).push_back([record] {
      if (!record->over) run(record->on, record.get());
    });
  }
  return SUCCESS;
}
API int cuStreamDestroy_v2(void* stream) {
  ALONE;
  // Work goes on after the call, which nobody can tell from work that ends within it.
  run_all();
  streams.erase(static_cast<Stream*>(stream));
  delete static_cast<Stream*>(stream);
  return SUCCESS;
}

API int cuEventCreate(void** event, unsigned) {
  ENTER;
  *event = new Event();
  return SUCCESS;
}
API int cuEventRecord(void* event, void* stream) {
  ENTER;
  auto record = std::make_shared<Record>();
  record->on = static_cast<Stream*>(stream);
  static_cast<Event*>(event)->latest = record;
  work_of(stream).push_back([record] {
    record->over = true;
    record->time = std::chrono::steady_clock::now();
  });
  return SUCCESS;
}
API int cuEventSynchronize(void* event) {
  ENTER;
  if (settings.hasty) return SUCCESS;
  const std::shared_ptr<Record> record = static_cast<Event*>(event)->latest;
  if (record && !record->over) run(record->on, record.get());
  return broken_by;
}
API int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
  ENTER;
  const std::shared_ptr<Record> first = static_cast<Event*>(start)->latest, last = static_cast<Event*>(end)->latest;
  if (!first || !last || !first->over || !last->over) return NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(last->time - first->time).count();
  return SUCCESS;
}
API int cuEventDestroy_v2(void* event) {
  ALONE;
  delete static_cast<Event*>(event);
  return SUCCESS;
}
