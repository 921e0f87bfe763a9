/* Makes one disk call of a process fail, or be its last: to be preloaded (LD_PRELOAD).
 *
 * Calls below the watched directories are counted from the moment of arming, those of
 * the kinds in a mask. The one with the chosen number fails with an errno, is cut short
 * (a write), or does not happen because the process kills itself. The count lies in
 * memory shared with forked children, so that a parent can read it after their end.
 */
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CREATE = 2, READ = 4, WRITE = 8, SYNC = 16, RENAME = 32, RESIZE = 64, REMOVE = 128 };
enum { SHORT = -1, KILL = -2 };
enum { EACH = -1 }; /* instead of one number: all of them */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char watched[2][PATH_MAX];
static int watched_kinds, outcome;
static long chosen;
static long *count; /* of calls, and beside it whether one was hit */

__attribute__((constructor)) static void start(void) {
    count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void disk_faults_arm(const char *one, const char *other, int kinds, long number, int what) {
    snprintf(watched[0], PATH_MAX, "%s", one);
    snprintf(watched[1], PATH_MAX, "%s", other);
    count[0] = count[1] = 0;
    chosen = number;
    outcome = what;
    watched_kinds = kinds;
}

long disk_faults_count(void) { return count[0]; }
int disk_faults_hit(void) { return (int)count[1]; }

static int is_watched(const char *path) {
    for (int i = 0; i < 2; i++) {
        size_t length = strlen(watched[i]);
        if (length && !strncmp(path, watched[i], length) && (!path[length] || path[length] == '/'))
            return 1;
    }
    return 0;
}

static int fd_is_watched(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_watched(path);
}

static int path_is_watched(int dir, const char *path) {
    char cwd[PATH_MAX];
    if (path[0] == '/') return is_watched(path);
    if (dir != AT_FDCWD) return fd_is_watched(dir);
    return getcwd(cwd, sizeof cwd) && is_watched(cwd);
}

/* What becomes of a call: 0 nothing, SHORT, or an errno. Does not return from KILL. */
static int hit(int kind) {
    long number = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (number != chosen && chosen != EACH) return 0;
    count[1] = kind;
    if (outcome == KILL) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    return outcome;
}

static int on_fd(int kind, int fd) {
    return watched_kinds & kind && fd_is_watched(fd) ? hit(kind) : 0;
}

static int on_path(int kind, int dir, const char *path) {
    return watched_kinds & kind && path_is_watched(dir, path) ? hit(kind) : 0;
}

#define FAIL(code) do { int c_ = (code); if (c_ > 0) { errno = c_; return -1; } } while (0)

static int opens(int dir, const char *path, int flags) {
    int kind = flags & O_CREAT ? CREATE : OPEN;
    return on_path(kind, dir, path);
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) {
    MODE(flags)
    FAIL(opens(AT_FDCWD, path, flags));
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    FAIL(opens(AT_FDCWD, path, flags));
    return REAL(open64)(path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...) {
    MODE(flags)
    FAIL(opens(dir, path, flags));
    return REAL(openat)(dir, path, flags, mode);
}
int openat64(int dir, const char *path, int flags, ...) {
    MODE(flags)
    FAIL(opens(dir, path, flags));
    return REAL(openat64)(dir, path, flags, mode);
}

#define WRITES(name, ...) \
    int what = on_fd(WRITE, fd); \
    FAIL(what); \
    if (what == SHORT && size > 1) size /= 2; \
    return REAL(name)(fd, data, size, ##__VA_ARGS__)

ssize_t write(int fd, const void *data, size_t size) { WRITES(write); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { WRITES(pwrite, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { WRITES(pwrite64, at); }

ssize_t read(int fd, void *data, size_t size) {
    FAIL(on_fd(READ, fd));
    return REAL(read)(fd, data, size);
}
ssize_t preadv(int fd, const struct iovec *views, int views_count, off_t at) {
    FAIL(on_fd(READ, fd));
    return REAL(preadv)(fd, views, views_count, at);
}
ssize_t preadv64(int fd, const struct iovec *views, int views_count, off64_t at) {
    FAIL(on_fd(READ, fd));
    return REAL(preadv64)(fd, views, views_count, at);
}
/* What os.preadv of Python calls where the C library has it. */
ssize_t preadv64v2(int fd, const struct iovec *views, int views_count, off64_t at, int flags) {
    FAIL(on_fd(READ, fd));
    return REAL(preadv64v2)(fd, views, views_count, at, flags);
}

int fsync(int fd) { FAIL(on_fd(SYNC, fd)); return REAL(fsync)(fd); }
int syncfs(int fd) { FAIL(on_fd(SYNC, fd)); return REAL(syncfs)(fd); }
int fdatasync(int fd) { FAIL(on_fd(SYNC, fd)); return REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { FAIL(on_fd(RESIZE, fd)); return REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) {
    FAIL(on_fd(RESIZE, fd));
    return REAL(ftruncate64)(fd, size);
}

int rename(const char *from, const char *to) {
    FAIL(on_path(RENAME, AT_FDCWD, to));
    return REAL(rename)(from, to);
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned int flags) {
    FAIL(on_path(RENAME, to_dir, to));
    return REAL(renameat2)(from_dir, from, to_dir, to, flags);
}
int mkdir(const char *path, mode_t mode) {
    FAIL(on_path(CREATE, AT_FDCWD, path));
    return REAL(mkdir)(path, mode);
}
int mkdirat(int dir, const char *path, mode_t mode) {
    FAIL(on_path(CREATE, dir, path));
    return REAL(mkdirat)(dir, path, mode);
}
int unlink(const char *path) {
    FAIL(on_path(REMOVE, AT_FDCWD, path));
    return REAL(unlink)(path);
}
int unlinkat(int dir, const char *path, int flags) {
    FAIL(on_path(REMOVE, dir, path));
    return REAL(unlinkat)(dir, path, flags);
}
