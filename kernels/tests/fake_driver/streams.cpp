// The fake driver's streams and events: work in queues, run when the host waits for it and no earlier.
#include "internals.h"

namespace fake_driver {
namespace {

constexpr int STREAMS_PER_DEVICE = 3;

struct Event {
  std::shared_ptr<EventRecord> latest;  // null before it is recorded
};

std::set<Stream*> streams;

}  // namespace

void run(Stream* stream, const EventRecord* until) {
  const bool was_running = stream->running;
  stream->running = true;
  if (settings.others) {
    const std::set<Stream*> all = streams;
    for (Stream* other : all) {
      if (!other->running) run(other);
    }
  }
  while (!stream->work.empty() && !(until && until->complete)) {
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

void drop_work() {
  for (Stream* stream : streams) stream->work.clear();
}

std::deque<std::function<void()>>& work_of(void* stream) { return static_cast<Stream*>(stream)->work; }

}  // namespace fake_driver

using namespace fake_driver;

API int cuStreamCreate(void** created, unsigned) {
  ENTER;
  auto* stream = new Stream();
  stream->number = static_cast<int>(streams.size()) % STREAMS_PER_DEVICE;
  *created = *streams.insert(stream).first;
  return SUCCESS;
}
API int cuStreamSynchronize(void* stream) {
  ENTER;
  run(static_cast<Stream*>(stream));
  return context_error;
}
API int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ENTER;
  if (static_cast<Stream*>(stream)->number == settings.ignore_events) return SUCCESS;
  // The current recording of the event; later recordings do not count.
  if (std::shared_ptr<EventRecord> record = static_cast<Event*>(event)->latest) {
    work_of(stream).push_back([record] {
      if (!record->complete) run(record->stream, record.get());
    });
  }
  return SUCCESS;
}
API int cuStreamDestroy_v2(void* stream) {
  LOCK;
  // The driver completes pending work after the call; here it completes within the call.
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
  auto record = std::make_shared<EventRecord>();
  record->stream = static_cast<Stream*>(stream);
  static_cast<Event*>(event)->latest = record;
  work_of(stream).push_back([record] {
    record->complete = true;
    record->time = std::chrono::steady_clock::now();
  });
  return SUCCESS;
}
API int cuEventSynchronize(void* event) {
  ENTER;
  if (settings.no_event_sync) return SUCCESS;
  const std::shared_ptr<EventRecord> record = static_cast<Event*>(event)->latest;
  if (record && !record->complete) run(record->stream, record.get());
  return context_error;
}
API int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
  ENTER;
  const std::shared_ptr<EventRecord> first = static_cast<Event*>(start)->latest, last = static_cast<Event*>(end)->latest;
  if (!first || !last || !first->complete || !last->complete) return NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(last->time - first->time).count();
  return SUCCESS;
}
API int cuEventDestroy_v2(void* event) {
  LOCK;
  delete static_cast<Event*>(event);
  return SUCCESS;
}
