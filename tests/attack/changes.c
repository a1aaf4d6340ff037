/* Counts the changes that a process makes to files below one folder; kills, fails or turns back the
   clock at the n-th. Loaded with LD_PRELOAD, so that it sees what Python, Arrow, NumPy, safetensors,
   torch and FAISS write alike. `changes.py` compiles it and fills the state, which lies in a file
   that every process of a command maps. Not seen: pages of mapped files that are written to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, OPEN = 2, MKDIR = 4, RENAME = 8, REMOVE = 16, SYNC = 32 };
enum { GO_ON = 0, FAIL = -1, HALF = 1 };

struct state {
    long count, kill_at, is_torn, error, error_from, error_ops, clock_from, clock_offset;
    char root[1024], trace[1024];
};
static struct state *state;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("STX_CHANGES");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) state = mapped;
}

static void place_of(int dir, const char *path, char *found, size_t size) {
    char link[64];
    ssize_t length = 0;
    if (path && path[0] == '/') {
        snprintf(found, size, "%s", path);
        return;
    }
    if (dir == AT_FDCWD) {
        if (!getcwd(found, size)) found[0] = 0;
        length = strlen(found);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        length = readlink(link, found, size - 1);
    }
    if (length < 0) length = 0;
    found[length] = 0;
    if (path) snprintf(found + length, size - length, "/%s", path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count one change; whether it is to be made, half made, or fails. */
static int change(int op, const char *name, int dir, const char *path) {
    if (!state || !state->root[0]) return GO_ON;
    int before = errno;
    char place[4096];
    place_of(dir, path, place, sizeof place);
    size_t length = strlen(state->root);
    errno = before;
    if (strncmp(place, state->root, length) || (place[length] != '/' && place[length])) return GO_ON;
    long number = __sync_add_and_fetch(&state->count, 1);
    if (state->trace[0]) {
        FILE *log = ((FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen64"))(state->trace, "a");
        if (log) {
            fprintf(log, "%ld %s %s\n", number, name, place + length);
            fclose(log);
        }
        errno = before;
    }
    if (state->kill_at && number == state->kill_at) {
        if (op == WRITE && state->is_torn) return HALF;
        die();
    }
    if (state->error && number >= state->error_from && (op & state->error_ops)) {
        errno = (int)state->error;
        return FAIL;
    }
    return GO_ON;
}

static int writes(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        if (writes(flags) && change(OPEN, "open", AT_FDCWD, path) == FAIL) return -1; \
        return real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        if (writes(flags) && change(OPEN, "open", dir, path) == FAIL) return -1; \
        return real(dir, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define FILE_OPENS(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        if (strpbrk(mode, "wa+") && change(OPEN, "open", AT_FDCWD, path) == FAIL) return NULL; \
        return real(path, mode); \
    }
FILE_OPENS(fopen)
FILE_OPENS(fopen64)

int creat(const char *path, mode_t mode) {
    REAL(creat);
    return change(OPEN, "open", AT_FDCWD, path) == FAIL ? -1 : real(path, mode);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    REAL(write);
    int how = change(WRITE, "write", fd, NULL);
    if (how == FAIL) return -1;
    if (how == HALF) {
        real(fd, bytes, size / 2);
        die();
    }
    return real(fd, bytes, size);
}

#define WRITES_AT(name, offset_type) \
    ssize_t name(int fd, const void *bytes, size_t size, offset_type offset) { \
        REAL(name); \
        int how = change(WRITE, "write", fd, NULL); \
        if (how == FAIL) return -1; \
        if (how == HALF) { \
            real(fd, bytes, size / 2, offset); \
            die(); \
        } \
        return real(fd, bytes, size, offset); \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    int how = change(WRITE, "write", fd, NULL);
    if (how == FAIL) return -1;
    if (how == HALF) {
        real(fd, parts, count / 2);
        die();
    }
    return real(fd, parts, count);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    int how = change(WRITE, "write", fileno(file), NULL);
    if (how == FAIL) return 0;
    if (how == HALF) {
        real(bytes, size, count / 2, file);
        fflush(file);
        die();
    }
    return real(bytes, size, count, file);
}

#define SENDS(name, offset_type) \
    ssize_t name(int out, int in, offset_type *offset, size_t size) { \
        REAL(name); \
        int how = change(WRITE, "write", out, NULL); \
        if (how == FAIL) return -1; \
        if (how == HALF) { \
            struct stat found; \
            real(out, in, offset, fstat(in, &found) ? 1 : found.st_size / 2); \
            die(); \
        } \
        return real(out, in, offset, size); \
    }
SENDS(sendfile, off_t)
SENDS(sendfile64, off64_t)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range);
    int how = change(WRITE, "write", out, NULL);
    if (how == FAIL) return -1;
    if (how == HALF) die();
    return real(in, from, out, to, size, flags);
}

#define CHANGES_ONE(op, name, declared, given, dir, path) \
    int name declared { \
        REAL(name); \
        return change(op, #name, dir, path) == FAIL ? -1 : real given; \
    }
CHANGES_ONE(MKDIR, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
CHANGES_ONE(MKDIR, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), dir, path)
CHANGES_ONE(REMOVE, rmdir, (const char *path), (path), AT_FDCWD, path)
CHANGES_ONE(REMOVE, unlink, (const char *path), (path), AT_FDCWD, path)
CHANGES_ONE(REMOVE, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), dir, path)
CHANGES_ONE(RENAME, rename, (const char *from, const char *to), (from, to), AT_FDCWD, to)
CHANGES_ONE(RENAME, renameat, (int dir, const char *from, int other, const char *to),
            (dir, from, other, to), other, to)
CHANGES_ONE(RENAME, link, (const char *from, const char *to), (from, to), AT_FDCWD, to)
CHANGES_ONE(RENAME, symlink, (const char *from, const char *to), (from, to), AT_FDCWD, to)
CHANGES_ONE(SYNC, fsync, (int fd), (fd), fd, NULL)
CHANGES_ONE(SYNC, fdatasync, (int fd), (fd), fd, NULL)
CHANGES_ONE(WRITE, ftruncate, (int fd, off_t size), (fd, size), fd, NULL)
CHANGES_ONE(WRITE, ftruncate64, (int fd, off64_t size), (fd, size), fd, NULL)

static long turned_back(void) {
    return state && state->clock_from && state->count >= state->clock_from ? state->clock_offset : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += turned_back();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    REAL(gettimeofday);
    int failed = real(now, zone);
    if (!failed) now->tv_sec += turned_back();
    return failed;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}
