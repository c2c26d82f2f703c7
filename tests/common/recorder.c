/* Records what a process asks of the file system below one folder, and can end or refuse it at a chosen call.
 *
 * Loaded in front of libc (LD_PRELOAD) into the real, unchanged program. Environment:
 *   QUIETUS_RECORD_ROOT   absolute path of the folder
 *   QUIETUS_RECORD_TRACE  file that events are appended to; without it nothing is recorded
 *   QUIETUS_RECORD_ACT    ACT:CALLS:NAME:N, from the calls whose letter is in CALLS (`*`: any) and whose path contains NAME
 *                         (`*`: any; with `$` behind it: ends with it): `kill` the process before the Nth, `fail` the Nth
 *                         with EIO, or `skip` the syncs among them (N is 0: all; 1: the odd ones; 2: the even ones), which is
 *                         how a program behaves that lacks them
 *
 * An event is written behind the call, under one lock with it, so that the trace has the order in which things happened; a
 * sync has two, at its begin and at its end, and others run meanwhile. What bypasses libc is not seen: whoever reads the
 * trace compares its end with the folder. The file `acks` is recorded and never counted.
 *
 *   call  C create   M mkdir   W write   Z set length   S sync begins   E sync ends   B sync failed
 *         U unlink   D rmdir   R rename   P process starts   X something that a trace cannot tell
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

struct event {
    uint64_t call, ino, at, size;
    uint32_t name, data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_len;
static int trace = -1;
static enum { NOTHING, KILL, FAIL, SKIP } act;
static char act_calls[32], act_name[128];
static long act_left;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void emit(char call, uint64_t ino, uint64_t at, uint64_t size, const char *name, const void *data, size_t len) {
    if (trace < 0)
        return;
    struct event event = {(uint64_t)call, ino, at, size, (uint32_t)strlen(name), (uint32_t)len};
    size_t total = sizeof event + event.name + len;
    char *bytes = malloc(total), *next = bytes;
    if (!bytes)
        _exit(99);
    memcpy(bytes, &event, sizeof event);
    memcpy(bytes + sizeof event, name, event.name);
    if (len)
        memcpy(bytes + sizeof event + event.name, data, len);
    while (total) {
        long done = syscall(SYS_write, trace, next, total);
        if (done <= 0)
            _exit(99);
        next += done;
        total -= (size_t)done;
    }
    free(bytes);
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("QUIETUS_RECORD_ROOT"), *path = getenv("QUIETUS_RECORD_TRACE");
    const char *asked = getenv("QUIETUS_RECORD_ACT");
    if (!folder)
        return;
    snprintf(root, sizeof root, "%s/", folder);
    root_len = strlen(root);
    if (path && (trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)
        _exit(99);
    char what[8] = "";
    if (asked) {
        if (sscanf(asked, "%7[^:]:%31[^:]:%127[^:]:%ld", what, act_calls, act_name, &act_left) != 4)
            _exit(98);
        act = what[0] == 'k' ? KILL : what[0] == 'f' ? FAIL : SKIP;
    }
    emit('P', 0, 0, 0, "", NULL, 0);
}

/* The path below the folder, or null. */
static const char *below(const char *path) {
    return root_len && path && !strncmp(path, root, root_len) ? path + root_len : NULL;
}

static const char *name_of(int fd, char *buffer) {
    char link[32];
    if (!root_len)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, buffer, PATH_MAX);
    if (len < 0)
        return NULL;
    buffer[len] = 0;
    /* The folder itself. */
    if ((size_t)len == root_len - 1 && !strncmp(buffer, root, (size_t)len))
        return "";
    return below(buffer);
}

static int is_meant(char call, const char *name) {
    size_t own = strlen(name), asked = strlen(act_name);
    if (!strcmp(name, "acks") || (act_calls[0] != '*' && !strchr(act_calls, call)))
        return 0;
    if (act_name[asked - 1] == '$')
        return own >= asked - 1 && !strncmp(name + own - (asked - 1), act_name, asked - 1);
    return act_name[0] == '*' || strstr(name, act_name) != NULL;
}

/* Whether this sync is to be left out. */
static int is_skipped(const char *name) {
    static long met;
    if (act != SKIP || !is_meant('S', name))
        return 0;
    pthread_mutex_lock(&lock);
    int skipped = act_left == 0 || ++met % 2 == act_left % 2;
    pthread_mutex_unlock(&lock);
    return skipped;
}

/* Under the lock: whether this call is to be refused. */
static int refused(char call, const char *name) {
    if ((act != KILL && act != FAIL) || !is_meant(call, name) || --act_left > 0)
        return 0;
    if (act == KILL) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;)
            pause();
    }
    act = NOTHING;
    errno = EIO;
    return 1;
}

static void emit_fd(char call, int fd, const char *name, uint64_t at, const void *data, size_t len) {
    struct stat found;
    if (fstat(fd, &found))
        return;
    emit(call, found.st_ino, at, (uint64_t)found.st_size, name, data, len);
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    const char *name = below(path);
    if (!name || (flags & O_ACCMODE) == O_RDONLY)
        return real(path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int is_new = (flags & O_CREAT) && lstat(path, &before);
    int fd = is_new && refused('C', name) ? -1 : real(path, flags, mode);
    int error = errno;
    if (fd >= 0 && is_new)
        emit_fd('C', fd, name, 0, NULL, 0);
    else if (fd >= 0 && (flags & O_TRUNC))
        emit_fd('Z', fd, name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPENS(open_name)                                                                                               \
    int open_name(const char *path, int flags, ...) {                                                                  \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;                                        \
        va_end(list);                                                                                                  \
        return opened(REAL(open_name), path, flags, mode);                                                             \
    }
OPENS(open)
OPENS(open64)

#define WRITTEN(at_expression, call_expression)                                                                        \
    char buffer[PATH_MAX + 1];                                                                                         \
    const char *name = name_of(fd, buffer);                                                                            \
    if (!name)                                                                                                         \
        return call_expression;                                                                                        \
    pthread_mutex_lock(&lock);                                                                                         \
    ssize_t done = refused('W', name) ? -1 : call_expression;                                                          \
    int error = errno;                                                                                                 \
    if (done > 0)                                                                                                      \
        emit_fd('W', fd, name, (uint64_t)(at_expression), bytes, (size_t)done);                                        \
    pthread_mutex_unlock(&lock);                                                                                       \
    errno = error;                                                                                                     \
    return done;

ssize_t write(int fd, const void *bytes, size_t count) { WRITTEN(lseek(fd, 0, SEEK_CUR) - done, REAL(write)(fd, bytes, count)) }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { WRITTEN(at, REAL(pwrite)(fd, bytes, count, at)) }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) { WRITTEN(at, REAL(pwrite64)(fd, bytes, count, at)) }

static int synced(int (*real)(int), int fd) {
    char buffer[PATH_MAX + 1];
    const char *name = name_of(fd, buffer);
    if (!name)
        return real(fd);
    if (is_skipped(name))
        return 0;
    pthread_mutex_lock(&lock);
    int refuse = refused('S', name);
    emit_fd('S', fd, name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    int done = refuse ? -1 : real(fd);
    int error = refuse ? EIO : errno;
    pthread_mutex_lock(&lock);
    emit_fd(done ? 'B' : 'E', fd, name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int fsync(int fd) { return synced(REAL(fsync), fd); }
int fdatasync(int fd) { return synced(REAL(fdatasync), fd); }

static int cut(int (*real)(int, off_t), int fd, off_t length) {
    char buffer[PATH_MAX + 1];
    const char *name = name_of(fd, buffer);
    if (!name)
        return real(fd, length);
    pthread_mutex_lock(&lock);
    int done = refused('Z', name) ? -1 : real(fd, length);
    int error = errno;
    if (!done)
        emit_fd('Z', fd, name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int ftruncate(int fd, off_t length) { return cut(REAL(ftruncate), fd, length); }
int ftruncate64(int fd, off_t length) { return cut(REAL(ftruncate64), fd, length); }

#define NAMED(call, path, call_expression, event)                                                                      \
    const char *name = below(path);                                                                                    \
    if (!name)                                                                                                         \
        return call_expression;                                                                                        \
    pthread_mutex_lock(&lock);                                                                                         \
    int done = refused(call, name) ? -1 : call_expression;                                                             \
    int error = errno;                                                                                                 \
    if (!done)                                                                                                         \
        event;                                                                                                         \
    pthread_mutex_unlock(&lock);                                                                                       \
    errno = error;                                                                                                     \
    return done;

int unlink(const char *path) { NAMED('U', path, REAL(unlink)(path), emit('U', 0, 0, 0, name, NULL, 0)) }
int rmdir(const char *path) { NAMED('D', path, REAL(rmdir)(path), emit('D', 0, 0, 0, name, NULL, 0)) }
int mkdir(const char *path, mode_t mode) { NAMED('M', path, REAL(mkdir)(path, mode), emit('M', 0, 0, 0, name, NULL, 0)) }
int rename(const char *from, const char *to) {
    const char *target = below(to);
    NAMED('R', from, REAL(rename)(from, to), emit('R', 0, 0, 0, name, target ? target : "", target ? strlen(target) : 0))
}
int link(const char *from, const char *to) { NAMED('X', from, REAL(link)(from, to), emit('X', 0, 0, 0, name, NULL, 0)) }

static void *mapped(void *(*real)(void *, size_t, int, int, int, off_t), void *to, size_t length, int protection, int flags,
                    int fd, off_t at) {
    char buffer[PATH_MAX + 1];
    const char *name;
    if (fd >= 0 && (protection & PROT_WRITE) && (flags & MAP_SHARED) && (name = name_of(fd, buffer))) {
        pthread_mutex_lock(&lock);
        emit('X', 0, 0, 0, name, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return real(to, length, protection, flags, fd, at);
}
void *mmap(void *to, size_t length, int protection, int flags, int fd, off_t at) {
    return mapped(REAL(mmap), to, length, protection, flags, fd, at);
}
void *mmap64(void *to, size_t length, int protection, int flags, int fd, off_t at) {
    return mapped(REAL(mmap64), to, length, protection, flags, fd, at);
}

/* Nothing is written between a call and its event when another thread aborts. */
void abort(void) {
    pthread_mutex_lock(&lock);
    REAL(abort)();
    __builtin_unreachable();
}
