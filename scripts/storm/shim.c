/* Counts every call that changes the file system below one folder, and ends the process at the
 * N-th, or lets it and all later ones fail: those that need space as on a full disk, or all as on
 * a disk that may only be read. Preloaded; it does nothing until storm_start is called, and nothing
 * in processes that are started. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = 0, FULL = 1, READ_ONLY = 2 };

static char folder[PATH_MAX];
static size_t folder_length;
static long target, mode;
static volatile long seen;
static volatile int on;

void storm_start(const char *below, long at, long how) {
    snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    target = at;
    mode = how;
    seen = 0;
    on = 1;
}

long storm_seen(void) { return seen; }

void storm_stop(void) { on = 0; }

static int below(const char *path) {
    return strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static int is_fd_inside(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int is_inside(int at, const char *path) {
    if (path == NULL) return 0;
    if (path[0] == '/') return below(path);
    if (at != AT_FDCWD) return is_fd_inside(at);
    char here[PATH_MAX];
    return getcwd(here, sizeof here) != NULL && below(here);
}

/* Returns whether the call has to fail; does not return where the process ends. */
static int change(int needs_space) {
    if (mode == FULL && !needs_space) return 0;
    long number = __sync_add_and_fetch(&seen, 1);
    if (target == 0 || number < target) return 0;
    if (mode == KILL) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = mode == FULL ? ENOSPC : EROFS;
    return 1;
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define AT(at, path, space) (on && is_inside(at, path) && change(space))
#define FD(fd, space) (on && is_fd_inside(fd) && change(space))

static int writes(int flags) { return (flags & (O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name)                                                           \
    int name(const char *path, int flags, ...) {                             \
        va_list list;                                                        \
        va_start(list, flags);                                               \
        mode_t bits = va_arg(list, mode_t);                                  \
        va_end(list);                                                        \
        if (writes(flags) && AT(AT_FDCWD, path, 1)) return -1;               \
        return NEXT(name)(path, flags, bits);                                \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                         \
    int name(int at, const char *path, int flags, ...) {                     \
        va_list list;                                                        \
        va_start(list, flags);                                               \
        mode_t bits = va_arg(list, mode_t);                                  \
        va_end(list);                                                        \
        if (writes(flags) && AT(at, path, 1)) return -1;                     \
        return NEXT(name)(at, path, flags, bits);                            \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                          \
    FILE *name(const char *path, const char *how) {                          \
        if (how[0] != 'r' && AT(AT_FDCWD, path, 1)) return NULL;             \
        return NEXT(name)(path, how);                                        \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int fd, const void *data, size_t size) {
    if (FD(fd, 1)) return -1;
    return NEXT(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (FD(fd, 1)) return -1;
    return NEXT(writev)(fd, parts, count);
}

#define PWRITE(name, offset_type)                                            \
    ssize_t name(int fd, const void *data, size_t size, offset_type at) {    \
        if (FD(fd, 1)) return -1;                                            \
        return NEXT(name)(fd, data, size, at);                               \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, offset_type)                                          \
    int name(int fd, offset_type size) {                                     \
        if (FD(fd, 1)) return -1;                                            \
        return NEXT(name)(fd, size);                                         \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
    if (FD(out, 1)) return -1;
    ssize_t (*next)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, "sendfile");
    return next(out, in, offset, size);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    if (FD(out, 1)) return -1;
    return NEXT(copy_file_range)(in, from, out, to, size, flags);
}

int mkdir(const char *path, mode_t bits) {
    if (AT(AT_FDCWD, path, 1)) return -1;
    return NEXT(mkdir)(path, bits);
}

int mkdirat(int at, const char *path, mode_t bits) {
    if (AT(at, path, 1)) return -1;
    return NEXT(mkdirat)(at, path, bits);
}

int link(const char *from, const char *to) {
    if (AT(AT_FDCWD, to, 1)) return -1;
    return NEXT(link)(from, to);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    if (AT(to_at, to, 1)) return -1;
    return NEXT(linkat)(from_at, from, to_at, to, flags);
}

int symlink(const char *to, const char *path) {
    if (AT(AT_FDCWD, path, 1)) return -1;
    return NEXT(symlink)(to, path);
}

int rename(const char *from, const char *to) {
    if (AT(AT_FDCWD, to, 0)) return -1;
    return NEXT(rename)(from, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    if (AT(to_at, to, 0)) return -1;
    return NEXT(renameat)(from_at, from, to_at, to);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    if (AT(to_at, to, 0)) return -1;
    return NEXT(renameat2)(from_at, from, to_at, to, flags);
}

int unlink(const char *path) {
    if (AT(AT_FDCWD, path, 0)) return -1;
    return NEXT(unlink)(path);
}

int unlinkat(int at, const char *path, int flags) {
    if (AT(at, path, 0)) return -1;
    return NEXT(unlinkat)(at, path, flags);
}

int rmdir(const char *path) {
    if (AT(AT_FDCWD, path, 0)) return -1;
    return NEXT(rmdir)(path);
}

int chmod(const char *path, mode_t bits) {
    if (AT(AT_FDCWD, path, 0)) return -1;
    return NEXT(chmod)(path, bits);
}
