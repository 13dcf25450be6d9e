/* A disk that fails on demand, for LD_PRELOAD: the n-th call that opens a file below a folder for writing, writes to
 * it, syncs it or renames it is answered with an error, or writes only a part of what it was given.
 *
 * Calls are counted from fault_arm to fault_disarm only, which the program finds by ctypes, so one process can try
 * every n.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#undef open64
#undef openat64
#undef pwrite64

enum {
    ONCE = 0,   /* the n-th call fails */
    STICKY = 1, /* it and all that follow */
    SHORT = 2,  /* the n-th call writes a half, all others everything */
    FULL = 3    /* the n-th call writes a half, all that follow fail: a disk that gets full */
};

static struct {
    char folder[PATH_MAX];
    long at, calls;
    int error, mode, armed;
    const char *hit;
} fault;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* From now on call number `at`, counted from 1, of those on paths below `folder` is answered as `mode` says. */
void fault_arm(const char *folder, long at, int error, int mode) {
    pthread_mutex_lock(&lock);
    snprintf(fault.folder, sizeof fault.folder, "%s", folder);
    fault.at = at;
    fault.calls = 0;
    fault.error = error;
    fault.mode = mode;
    fault.hit = "";
    fault.armed = 1;
    pthread_mutex_unlock(&lock);
}

/* End of the faults. The name of the first call that failed or was cut short; "" where none was. */
const char *fault_disarm(void) {
    pthread_mutex_lock(&lock);
    fault.armed = 0;
    pthread_mutex_unlock(&lock);
    return fault.hit;
}

static int is_below(const char *path) {
    const size_t length = strlen(fault.folder);
    return strncmp(path, fault.folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static void path_of(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

/* What becomes of a call: -1 an error (errno is set), 1 the half of a write, 0 nothing special. */
static int fate(const char *call, const char *path, int is_write) {
    if (!fault.armed || !is_below(path)) {
        return 0;
    }
    int result = 0;
    pthread_mutex_lock(&lock);
    if (fault.mode != SHORT || is_write) {
        fault.calls++;
    }
    const int now = fault.calls == fault.at;
    if (fault.mode == SHORT) {
        result = now && is_write;
    } else if (fault.mode == FULL && now && is_write) {
        result = 1;
    } else if (now || (fault.calls > fault.at && fault.mode != ONCE)) {
        errno = fault.error;
        result = -1;
    }
    if (result && !*fault.hit) {
        fault.hit = call;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int fate_of_fd(const char *call, int fd, int is_write) {
    char path[PATH_MAX];
    if (!fault.armed) {
        return 0;
    }
    path_of(fd, path);
    return fate(call, path, is_write);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opens(const char *path, int flags, mode_t mode, int (*real)(const char *, int, ...)) {
    if ((flags & O_ACCMODE) != O_RDONLY && fate("open", path, 0) < 0) {
        return -1;
    }
    return real(path, flags, mode);
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return opens(path, flags, mode, REAL(open));
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return opens(path, flags, mode, REAL(open64));
}

ssize_t write(int fd, const void *data, size_t size) {
    const int what = fate_of_fd("write", fd, 1);
    return what < 0 ? -1 : REAL(write)(fd, data, what ? (size + 1) / 2 : size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    const int what = fate_of_fd("write", fd, 1);
    return what < 0 ? -1 : REAL(pwrite)(fd, data, what ? (size + 1) / 2 : size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    const int what = fate_of_fd("write", fd, 1);
    return what < 0 ? -1 : REAL(pwrite64)(fd, data, what ? (size + 1) / 2 : size, offset);
}

static int syncs(int fd, int (*real)(int)) {
    struct stat about;
    const char *call =
        fault.armed && fstat(fd, &about) == 0 && S_ISDIR(about.st_mode) ? "fsync of the folder" : "fsync";
    return fate_of_fd(call, fd, 0) < 0 ? -1 : real(fd);
}

int fsync(int fd) {
    return syncs(fd, REAL(fsync));
}

int fdatasync(int fd) {
    return syncs(fd, REAL(fdatasync));
}

int rename(const char *from, const char *to) {
    return fate("rename", to, 0) < 0 ? -1 : REAL(rename)(from, to);
}
