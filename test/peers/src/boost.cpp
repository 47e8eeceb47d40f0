// Boost.Interprocess: a shared memory object with its named mutex beside it, or with its robust mutex inside.
#include <boost/interprocess/detail/robust_emulation.hpp>
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

// Boost's robust mutex is an emulation: it tries, yields, and looks whether the owner's lock file is still locked.
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

static void peer_info() {
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
		return peer_main(argc, argv);
	} catch (const std::exception &e) {
		fail("boost", e.what());
	}
}
