// Boost.Interprocess: a shared memory object with its named mutex beside it, or with its robust mutex inside.
#include <boost/interprocess/detail/robust_emulation.hpp>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <boost/interprocess/sync/interprocess_condition.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/spin/mutex.hpp>
#include <boost/interprocess/sync/named_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/version.hpp>
#include <new>
#include <string>

#include "peer.h"

#define HAS_LOCK
#define HAS_NOTIFY

namespace bip = boost::interprocess;

static bool robust; // the variant

// Boost emulates a robust mutex: it tries, yields, and checks whether the owner's lock file is still locked.
typedef bip::ipcdetail::robust_spin_mutex<bip::ipcdetail::spin_mutex> robust_mutex;

struct header {
	bip::interprocess_mutex mutex;
	bip::interprocess_condition cond[2];
	robust_mutex robust;
};
static const size_t header_size = 4096;

struct seg {
	char *data;
	header *h;
	bip::shared_memory_object *object;
	bip::mapped_region *region;
	bip::named_mutex *named;
	std::string *key;
	bool created;
};

static void seg_open(seg *s, const char *key, size_t size, int create) {
	try {
		std::string lock = std::string(key) + "-lock";
		if (create) {
			s->object = new bip::shared_memory_object(bip::create_only, key, bip::read_write);
			s->object->truncate((bip::offset_t)(size + header_size));
			if (!robust) s->named = new bip::named_mutex(bip::create_only, lock.c_str());
		} else {
			s->object = new bip::shared_memory_object(bip::open_only, key, bip::read_write);
			if (!robust) s->named = new bip::named_mutex(bip::open_only, lock.c_str());
		}
		s->region = new bip::mapped_region(*s->object, bip::read_write);
	} catch (const std::exception &e) {
		fail("boost", e.what());
	}
	s->h = (header *)s->region->get_address();
	s->data = (char *)s->h + header_size;
	s->key = new std::string(key);
	s->created = create;
	if (create) new (s->h) header;
}

static void seg_close(seg *s) {
	delete s->region;
	delete s->object;
	delete s->named;
	if (s->created) {
		bip::shared_memory_object::remove(s->key->c_str());
		if (!robust) bip::named_mutex::remove((*s->key + "-lock").c_str());
	}
	delete s->key;
}

ALWAYS_INLINE void seg_lock(seg *s) {
	if (!robust) {
		s->named->lock();
		return;
	}
	s->h->robust.lock();
	if (s->h->robust.previous_owner_dead()) s->h->robust.consistent();
}

ALWAYS_INLINE void seg_unlock(seg *s) {
	if (robust) s->h->robust.unlock();
	else s->named->unlock();
}

static void seg_publish(seg *s, int side, uint32_t *word, uint32_t v) {
	{
		bip::scoped_lock<bip::interprocess_mutex> hold(s->h->mutex);
		*word = v;
	}
	s->h->cond[side].notify_one();
}

static void seg_await(seg *s, int side, uint32_t *word, uint32_t v) {
	bip::scoped_lock<bip::interprocess_mutex> hold(s->h->mutex);
	while ((int32_t)(*word - v) < 0) s->h->cond[side].wait(hold);
}

#include "peer_ops.h"

// A queue for each direction. It copies a message in and out.
static bip::message_queue *open_queue(const char *way, size_t size, int create) {
	std::string name = std::string(arg("key", "")) + way;
	if (!create) return new bip::message_queue(bip::open_only, name.c_str());
	size_t room = (size_t)number("ring", 1 << 20) / size;
	return new bip::message_queue(bip::create_only, name.c_str(), room < 2 ? 2 : room, size);
}

static void remove_queues() {
	for (const char *way : {"-there", "-back"}) bip::message_queue::remove((std::string(arg("key", "")) + way).c_str());
}

static void do_messages() {
	size_t size = number("size", 64);
	long n = number("n", 100), warm = number("warm", 2), slots = number("slots", 2);
	int send = number("create", 0);
	bip::message_queue *q = open_queue("-there", size, send);
	char *buf = (char *)calloc(1, size);
	if (wait_for_go() >= 0) {
		int64_t begin = now(), bad = 0;
		struct pace pace = {(double *)calloc(n + 1, sizeof(double)), 0, slots < n ? slots : n, 0, begin};
		for (long i = 1; i <= n + warm; i++) {
			if (i == warm + 1) begin = pace.since = now();
			if (send) {
				*(int64_t *)buf = *(int64_t *)(buf + size - 8) = i;
				q->send(buf, size, 0);
				continue;
			}
			bip::message_queue::size_type got;
			unsigned priority;
			q->receive(buf, size, got, priority);
			bad += got != size || *(int64_t *)buf != i;
			if (i > warm) pace_step(&pace);
		}
		if (bad) fail("messages", "a message arrived damaged");
		printf("{\"n\":%ld,\"begin\":%lld,\"end\":%lld,\"op_ns\":%.3f}\n", n, (long long)begin, (long long)now(),
		       pace_median(&pace));
	}
	wait_for_end();
	delete q;
	if (send) remove_queues();
}

static void do_hand() {
	static struct hist h;
	size_t size = number("size", 64);
	long n = number("n", 1000);
	int first = number("create", 0);
	bip::message_queue *q[2] = {open_queue("-there", size, first), open_queue("-back", size, first)};
	char *buf = (char *)calloc(1, size);
	if (wait_for_go() >= 0) {
		for (long i = 0; i < n; i++)
			for (int side = 0; side < 2; side++) {
				if (side == !first) {
					*(int64_t *)buf = now();
					q[side]->send(buf, size, 0);
					continue;
				}
				bip::message_queue::size_type got;
				unsigned priority;
				q[side]->receive(buf, size, got, priority);
				hist_add(&h, now() - *(int64_t *)buf);
			}
		printf("{\"n\":%ld,", n);
		hist_print(&h);
		printf("}\n");
	}
	wait_for_end();
	delete q[0];
	delete q[1];
	if (first) remove_queues();
}

static void peer_info() {
	printf("{\"variant\":\"queue\",\"name\":\"Boost message_queue\",\"version\":\"Boost.Interprocess %d.%d\",\"ops\":"
	       "[\"messages\",\"hand\"]}\n",
	       BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000);
	printf("{\"variant\":\"named\",\"name\":\"Boost named mutex\",\"version\":\"Boost.Interprocess %d.%d\",\"ops\":"
	       "[\"lock\",\"contend\",\"update\",\"snapshot\",\"hold\",\"attach\",\"create\",\"ping\",\"move\"]}\n",
	       BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000);
	printf("{\"variant\":\"robust\",\"name\":\"Boost robust mutex\",\"version\":\"Boost.Interprocess %d.%d\",\"ops\":"
	       "[\"lock\",\"contend\",\"update\",\"snapshot\"]}\n",
	       BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000);
}

int main(int argc, char **argv) {
	robust = argc > 1 && !strcmp(argv[1], "robust");
	try {
		if (argc > 2 && !strcmp(argv[1], "queue")) {
			arg_count = argc;
			arg_values = argv;
			if (!strcmp(argv[2], "messages")) do_messages();
			else do_hand();
			return 0;
		}
		return peer_main(argc, argv);
	} catch (const std::exception &e) {
		fail("boost", e.what());
	}
}
