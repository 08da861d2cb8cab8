/* Records, and can fail, the calls by which a process tree changes the files below one directory. 64-bit Linux, glibc.
 *
 * Preloaded into a program and all its children. CRASH_CONTROL names a file that holds a `struct control`, which all of
 * them map: it says which directory is watched, numbers the operations in one order, and names the one to fail.
 * CRASH_LOG names the file to which each operation that was done is appended by one call: a `struct record`, its paths
 * and the bytes that were written. An operation gets its number before it is tried; one that failed leaves no record.
 *
 * The C library writes out its streams by calls that cannot be replaced. Where a stream is flushed or closed, what it
 * added to its file is read back and recorded as a write. recorder.py is the other side of all this. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    _Atomic uint64_t count; /* operations so far */
    uint64_t at;            /* the operation to fail; 0: none */
    int32_t error;          /* the errno that it fails with; 0: SIGKILL for the whole process group */
    int32_t lasting;        /* whether all later ones fail too, but for those that never meet this error */
    int32_t group;          /* the process group */
    _Atomic int32_t fired;  /* whether anything was failed */
    char below[PATH_MAX];   /* the absolute path of the watched directory */
};

enum { ROOM = 2 * PATH_MAX }; /* for a directory and a path in it */
enum { CREATE = 'c', WRITE = 'w', TRUNCATE = 't', SYNC = 's' };
enum { MKDIR = 'm', LINK = 'l', SYMLINK = 'y', RENAME = 'r', UNLINK = 'u', RMDIR = 'd' };

struct record {
    uint64_t number;
    uint64_t inode; /* of the file or directory that was made, written, cut or synced */
    int64_t offset; /* of a write; the length that a file was cut to */
    uint32_t kind;
    uint32_t path;  /* bytes of the path */
    uint32_t other; /* bytes of the second path: the new one, or the target of a symbolic link */
    uint32_t data;  /* bytes that were written */
};

static struct control *control;
static int log_fd = -1;
static __thread uint64_t number; /* of the operation that this thread is in */

__attribute__((constructor)) static void start(void)
{
    const char *where = getenv("CRASH_CONTROL"), *log = getenv("CRASH_LOG");
    if (!where || !log)
        return;
    int fd = syscall(SYS_openat, AT_FDCWD, where, O_RDWR | O_CLOEXEC);
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (mapped == MAP_FAILED || log_fd < 0)
        abort();
    close(fd);
    control = mapped;
}

static bool below(const char *path)
{
    size_t length = strlen(control->below);
    return length && !strncmp(path, control->below, length) && strchr("/", path[length]); /* or '\0' */
}

/* Write the path behind a descriptor to `out`, and tell whether it is watched. */
static bool behind(int fd, char *out)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = control ? readlink(link, out, PATH_MAX - 1) : -1;
    out[length < 0 ? 0 : length] = '\0';
    return length > 0 && below(out);
}

/* Write the absolute path of `path` in the directory `at` to `out`, and tell whether it is watched. */
static bool watched(int at, const char *path, char *out)
{
    out[0] = '\0';
    if (!control)
        return false;
    if (path[0] != '/') {
        if (at != AT_FDCWD)
            behind(at, out);
        else if (!getcwd(out, PATH_MAX))
            return false;
        strcat(out, "/");
    }
    strncat(out, path, PATH_MAX - 2);
    return below(out);
}

/* Number an operation. Returns false, with errno set, if it is to fail; it never meets the error `never`. */
static bool admitted(int never)
{
    number = atomic_fetch_add(&control->count, 1) + 1;
    bool hit = control->at && (number == control->at || (control->lasting && number > control->at));
    if (!hit || (control->error && control->error == never))
        return true;
    control->fired = 1;
    while (!control->error)
        kill(-control->group, SIGKILL);
    errno = control->error;
    return false;
}

static void record(int kind, uint64_t inode, int64_t offset, const char *path, const char *other, struct iovec data)
{
    struct record head = {number, inode, offset, kind, strlen(path), strlen(other), data.iov_len};
    struct iovec parts[] = {{&head, sizeof head}, {(char *)path, head.path}, {(char *)other, head.other}, data};
    int before = errno;
    if (syscall(SYS_writev, log_fd, parts, 4) < 0)
        abort();
    errno = before;
}

static void record_file(int kind, int fd, int64_t offset, const char *path, const void *data, size_t size)
{
    struct stat status = {0};
    fstat(fd, &status);
    record(kind, status.st_ino, offset, path, "", (struct iovec){(void *)data, size});
}

/* Files: opening one is an operation if it may make it or empty it. */

static void record_opened(int fd, bool emptied, const char *path)
{
    record_file(CREATE, fd, 0, path, "", 0);
    if (emptied)
        record_file(TRUNCATE, fd, 0, path, "", 0);
}

int openat(int at, const char *path, int flags, ...)
{
    char full[ROOM];
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t); /* whatever that is where there is none */
    va_end(rest);
    bool changes = flags & (O_CREAT | O_TRUNC) && watched(at, path, full);
    int fd = changes && !admitted(0) ? -1 : syscall(SYS_openat, at, path, flags, mode);
    if (changes && fd >= 0)
        record_opened(fd, flags & O_TRUNC, full);
    return fd;
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t); /* whatever that is where there is none */
    va_end(rest);
    return openat(AT_FDCWD, path, flags, mode);
}

int mkstemp(char *path)
{
    int (*next)(char *) = (int (*)(char *))dlsym(RTLD_NEXT, "mkstemp");
    char full[ROOM];
    int fd = watched(AT_FDCWD, path, full) && !admitted(0) ? -1 : next(path);
    if (fd >= 0 && behind(fd, full))
        record_opened(fd, false, full);
    return fd;
}

FILE *fopen(const char *path, const char *how)
{
    FILE *(*next)(const char *, const char *) = (FILE *(*)(const char *, const char *))dlsym(RTLD_NEXT, "fopen");
    char full[ROOM];
    bool changes = how[0] != 'r' && watched(AT_FDCWD, path, full);
    FILE *made = changes && !admitted(0) ? NULL : next(path, how);
    if (changes && made)
        record_opened(fileno(made), how[0] == 'w', full);
    return made;
}

/* Write, and record what went out: at `offset`, or where the descriptor stands if that is negative. */
static ssize_t put(int fd, const void *data, size_t size, off_t offset)
{
    char full[ROOM];
    bool seen = behind(fd, full);
    if (seen && !admitted(0))
        return -1;
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset);
    if (seen && done > 0)
        record_file(WRITE, fd, offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : offset, full, data, done);
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return put(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return put(fd, data, size, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    char full[ROOM];
    if (!behind(fd, full))
        return syscall(SYS_writev, fd, parts, count);
    ssize_t all = 0, done = 0;
    for (int i = 0; i < count && done >= 0; i++)
        all += (done = put(fd, parts[i].iov_base, parts[i].iov_len, -1)) > 0 ? done : 0;
    return all ? all : done;
}

/* Make the system call `call` on the file `fd` if it is admitted, and record it as `kind` if it succeeds. */
#define ON_FILE(never, kind, fd, offset, call)                                                                         \
    char full[ROOM];                                                                                                   \
    bool seen = behind(fd, full);                                                                                      \
    int result = seen && !admitted(never) ? -1 : (call);                                                               \
    if (seen && !result)                                                                                               \
        record_file(kind, fd, offset, full, "", 0);                                                                    \
    return result

int ftruncate(int fd, off_t length) { ON_FILE(0, TRUNCATE, fd, length, syscall(SYS_ftruncate, fd, length)); }
int fsync(int fd) { ON_FILE(EROFS, SYNC, fd, 0, syscall(SYS_fsync, fd)); }

/* Let `next` write out a stream, and record what its file got. */
static int flushed(FILE *stream, int (*next)(FILE *))
{
    char full[ROOM], link[32];
    size_t size = stream ? __fpending(stream) : 0;
    if (!size || !behind(fileno(stream), full))
        return next(stream);
    bool fails = !admitted(0);
    int error = errno;
    if (fails)
        __fpurge(stream);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fileno(stream));
    int copy = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    off_t offset = lseek(fileno(stream), 0, SEEK_CUR);
    int result = next(stream);
    char *data = malloc(size);
    ssize_t found = fails || result ? 0 : pread(copy, data, size, offset);
    if (found > 0)
        record_file(WRITE, copy, offset, full, data, found);
    free(data);
    close(copy);
    errno = fails ? error : errno;
    return fails ? EOF : result;
}

int fflush(FILE *stream) { return flushed(stream, (int (*)(FILE *))dlsym(RTLD_NEXT, "fflush")); }
int fclose(FILE *stream) { return flushed(stream, (int (*)(FILE *))dlsym(RTLD_NEXT, "fclose")); }

/* Names: make the system call if it is admitted, and record it as `kind` with the path, and `other`, if it succeeds. */
#define ON_NAME(never, kind, at, path, other, inode, ...)                                                              \
    char full[ROOM];                                                                                                   \
    bool seen = watched(at, path, full);                                                                               \
    int result = seen && !admitted(never) ? -1 : syscall(__VA_ARGS__);                                                 \
    struct stat status = {0};                                                                                          \
    if (seen && !result && (!(inode) || !fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW)))                             \
        record(kind, status.st_ino, 0, full, other, (struct iovec){"", 0});                                            \
    return result

int mkdirat(int at, const char *path, mode_t mode)
{
    ON_NAME(0, MKDIR, at, path, "", true, SYS_mkdirat, at, path, mode);
}

int unlinkat(int at, const char *path, int flags)
{
    ON_NAME(ENOSPC, flags & AT_REMOVEDIR ? RMDIR : UNLINK, at, path, "", false, SYS_unlinkat, at, path, flags);
}

int symlinkat(const char *target, int at, const char *path)
{
    ON_NAME(0, SYMLINK, at, path, target, false, SYS_symlinkat, target, at, path);
}

int linkat(int from, const char *path, int to, const char *final, int flags)
{
    char other[ROOM];
    watched(to, final, other);
    ON_NAME(0, LINK, from, path, other, false, SYS_linkat, from, path, to, final, flags);
}

int renameat2(int from, const char *path, int to, const char *final, unsigned flags)
{
    char other[ROOM];
    watched(to, final, other);
    ON_NAME(0, RENAME, from, path, other, false, SYS_renameat2, from, path, to, final, flags);
}

int renameat(int from, const char *path, int to, const char *final) { return renameat2(from, path, to, final, 0); }
int rename(const char *path, const char *final) { return renameat2(AT_FDCWD, path, AT_FDCWD, final, 0); }
int link(const char *path, const char *final) { return linkat(AT_FDCWD, path, AT_FDCWD, final, 0); }
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

/* The same functions under their other names. */
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int mkstemp64(char *path) __attribute__((alias("mkstemp")));
int openat64(int at, const char *path, int flags, ...) __attribute__((alias("openat")));
FILE *fopen64(const char *path, const char *how) __attribute__((alias("fopen")));
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) __attribute__((alias("pwrite")));
int ftruncate64(int fd, off_t length) __attribute__((alias("ftruncate")));
int fdatasync(int fd) __attribute__((alias("fsync")));
