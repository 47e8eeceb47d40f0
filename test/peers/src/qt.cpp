// Qt's QSharedMemory: the SysV backend, the POSIX one where Qt has a choice (6.6 and later), and for changes both
// what a user of QSharedMemory does (poll every 200 ms) and what Qt could do (a QSystemSemaphore for each direction).
#define QT_NO_KEYWORDS // "slots" is a variable here
#include <QtCore/QSharedMemory>
#include <QtCore/QSystemSemaphore>
#if QT_VERSION >= QT_VERSION_CHECK(6, 6, 0)
#define HAS_NATIVE_KEY
#endif

#include "peer.h"

#include <sys/mman.h>

#define HAS_LOCK
#define HAS_NOTIFY

static bool posix, polling; // the variant
static bool talking;        // whether this operation needs semaphores beside the memory

struct seg {
	char *data;
	QSharedMemory *memory;
	QSystemSemaphore *semaphore[2];
	bool created;
};

#ifdef HAS_NATIVE_KEY
static QNativeIpcKey native(const QString &key) {
	return QSharedMemory::platformSafeKey(key, posix ? QNativeIpcKey::Type::PosixRealtime : QNativeIpcKey::Type::SystemV);
}
#else
static QString native(const QString &key) { return key; }
#endif

static void seg_open(seg *s, const char *key, size_t size, int create) {
	QString k = QString::fromUtf8(key);
#ifdef HAS_NATIVE_KEY
	s->memory = new QSharedMemory(native(k));
#else
	s->memory = new QSharedMemory(k);
#endif
	bool ok = create ? s->memory->create((qsizetype)size) : s->memory->attach();
	if (!ok) fail("QSharedMemory", s->memory->errorString().toUtf8().constData());
	s->data = (char *)s->memory->data();
	s->created = create;
	if (talking && !polling)
		for (int i = 0; i < 2; i++) {
			QString name = k + (i ? "-back" : "-forth");
			s->semaphore[i] = new QSystemSemaphore(native(name), 0, create ? QSystemSemaphore::Create : QSystemSemaphore::Open);
			if (s->semaphore[i]->error() != QSystemSemaphore::NoError)
				fail("QSystemSemaphore", s->semaphore[i]->errorString().toUtf8().constData());
		}
}

// The last detach destroys SysV memory. POSIX memory stays, and Qt does not remove it.
static void destroy(QSharedMemory *memory) {
	QByteArray name;
	if (posix) name = memory->nativeKey().toUtf8();
	delete memory;
	if (posix) shm_unlink(name.constData());
}

static void seg_close(seg *s) {
	delete s->semaphore[0];
	delete s->semaphore[1];
	if (s->created) destroy(s->memory);
	else delete s->memory;
}

ALWAYS_INLINE void seg_lock(seg *s) { s->memory->lock(); }
ALWAYS_INLINE void seg_unlock(seg *s) { s->memory->unlock(); }

static void seg_publish(seg *s, int side, uint32_t *word, uint32_t v) {
	seg_lock(s);
	*word = v;
	seg_unlock(s);
	if (!polling) s->semaphore[side]->release();
}

static void seg_await(seg *s, int side, uint32_t *word, uint32_t v) {
	for (;;) {
		if (!polling) s->semaphore[side]->acquire();
		seg_lock(s);
		uint32_t seen = *word;
		seg_unlock(s);
		if ((int32_t)(seen - v) >= 0) return;
		if (polling) usleep(200000);
	}
}

#include "peer_ops.h"

// Removes what a killed worker has left. Its lock may be held for ever: creating the semaphore anew releases it, and
// makes this process its owner, which removes it at the end.
static void clean() {
	QString key = QString::fromUtf8(arg("key", ""));
	QSystemSemaphore lock(native(key), 1, QSystemSemaphore::Create);
	QSharedMemory *memory = new QSharedMemory(native(key));
	memory->attach();
	destroy(memory);
}

static void info(const char *variant, const char *name, const char *ops) {
	printf("{\"variant\":\"%s\",\"name\":\"%s\",\"version\":\"Qt %s\",\"ops\":[%s]}\n", variant, name, qVersion(), ops);
}

static void peer_info() {
	const char *ops =
	    "\"lock\",\"contend\",\"queue\",\"update\",\"snapshot\",\"hold\",\"attach\",\"create\",\"ping\",\"move\",\"clean\"";
#ifdef HAS_NATIVE_KEY
	bool sysv = QSharedMemory::isKeyTypeSupported(QNativeIpcKey::Type::SystemV);
	if (sysv) info("sysv", "Qt QSharedMemory (SysV)", ops);
	if (QSharedMemory::isKeyTypeSupported(QNativeIpcKey::Type::PosixRealtime)) info("posix", "Qt QSharedMemory (POSIX)", ops);
#else
	info("sysv", "Qt QSharedMemory (SysV)", ops);
	printf("{\"variant\":\"posix\",\"name\":\"Qt QSharedMemory (POSIX)\",\"skip\":\"Qt %s has no choice of backend, 6.6 does\"}\n",
	       qVersion());
#endif
	info("poll", "Qt, looking each 200 ms", "\"poll\"");
}

int main(int argc, char **argv) {
	posix = argc > 1 && !strcmp(argv[1], "posix");
	polling = argc > 1 && !strcmp(argv[1], "poll");
	talking = argc > 2 && (!strcmp(argv[2], "ping") || !strcmp(argv[2], "move"));
	if (argc > 2 && !strcmp(argv[2], "clean")) {
		arg_count = argc;
		arg_values = argv;
		clean();
		return 0;
	}
	return peer_main(argc, argv);
}
