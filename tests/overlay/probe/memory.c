/* Files in memory, programs, and locks. */
#include "probe.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

static char *map(const char *path, int flags, int protection, int shared) {
    int fd = MUST(open(path, flags));
    char *memory = mmap(0, 65536, protection, shared ? MAP_SHARED : MAP_PRIVATE, fd, 0);
    MUST((intptr_t)memory);
    close(fd);
    return memory;
}

CHECK(lower_files_are_mapped) {
    char *shared = map("data", O_RDONLY, PROT_READ, 1), *own = map("data", O_RDONLY, PROT_READ, 0);
    IS(shared[40000] == (char)(40000 % 251) && own[65535] == (char)(65535 % 251));
    int fd = MUST(open("data", O_RDONLY));
    IS(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
    MUST(unlink("data"));
    IS(shared[50000] == (char)(50000 % 251));
}

CHECK(private_memory_stays_private) {
    char *own = map("data", O_RDWR, PROT_READ | PROT_WRITE, 0);
    own[0] = 'X';
    int fd = MUST(open("data", O_RDONLY));
    char byte;
    IS(pread(fd, &byte, 1, 0) == 1 && byte == 0);
    own = map("changed", O_RDONLY, PROT_READ | PROT_WRITE, 0);
    own[0] = 'X';
    IS(!strcmp(text("changed"), "second\n"));
}

CHECK(shared_memory_is_the_file) {
    char *shared = map("data", O_RDWR, PROT_READ | PROT_WRITE, 1);
    memcpy(shared + 5000, "through memory", 14);
    int fd = MUST(open("data", O_RDWR));
    char found[15] = "";
    IS(pread(fd, found, 14, 5000) == 14 && !strcmp(found, "through memory"));
    IS(pwrite(fd, "WRITTEN", 7, 5000) == 7 && !memcmp(shared + 5000, "WRITTEN", 7));
    MUST(msync(shared, 65536, MS_SYNC));
    int child = MUST(fork());
    if (child == 0) {
        shared[0] = 'c';
        char *again = map("data", O_RDWR, PROT_READ | PROT_WRITE, 1);
        again[1] = 'd';
        _exit(0);
    }
    IS(status_of(child) == 0 && shared[0] == 'c' && shared[1] == 'd');
    MUST(munmap(shared, 65536));
    IS(pread(fd, found, 2, 0) == 2 && found[0] == 'c' && found[1] == 'd');
}

CHECK(memory_of_a_new_file) {
    int fd = MUST(open("new", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, 65536));
    char *shared = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST((intptr_t)shared);
    MUST(unlink("new"));
    MUST(close(fd));
    for (int at = 0; at < 65536; at++)
        shared[at] = (char)(at % 7);
    for (int at = 0; at < 65536; at += 999)
        IS(shared[at] == (char)(at % 7));
}

static volatile char sink;

CHECK(memory_beyond_the_end) {
    int fd = MUST(open("data", O_RDWR));
    char *shared = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST((intptr_t)shared);
    IS(shared[65535] == (char)(65535 % 251));
    MUST(ftruncate(fd, 4096));
    int child = MUST(fork());
    if (child == 0) {
        sink = shared[8192];
        _exit(0);
    }
    IS(status_of(child) == 128 + SIGBUS);
    IS(shared[100] == 100);
}

/* A file that was mapped before somebody else opened it for writing. */
CHECK(memory_sees_what_is_written_later) {
    char *shared = map("data", O_RDONLY, PROT_READ, 1);
    IS(shared[10] == 10);
    int fd = MUST(open("data", O_RDWR));
    IS(pwrite(fd, "X", 1, 10) == 1);
    IS(shared[10] == 'X');
}

static int run(const char *path) {
    int child = MUST(fork());
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        execl(path, path, "say", (char *)0);
        _exit(100 + (errno == ENOEXEC) + 2 * (errno == EACCES) + 4 * (errno == ETXTBSY));
    }
    return status_of(child);
}

CHECK(programs_are_executed) {
    IS(run("../../big/program") == 0);
    copy(SELF, "new", 0755);
    IS(run("new") == 0 && run("./new") == 0);
    MUST(chmod("new", 0644));
    IS(run("new") == 102);
    IS(run("dir") == 102 && run("file") == 102);
    MUST(chmod("file", 0755));
    IS(run("file") == 101);
    copy(SELF, "gone", 0755);
    MUST(rename("gone", "file"));
    IS(run("file") == 0);
    /* By descriptor. */
    int fd = MUST(open("file", O_PATH | O_CLOEXEC));
    int child = MUST(fork());
    if (child == 0) {
        char *words[] = {"file", "list", 0}, *none[] = {0};
        dup2(open("/dev/null", O_WRONLY), 1);
        execveat(fd, "", words, none, AT_EMPTY_PATH);
        _exit(1);
    }
    IS(status_of(child) == 0);
}

CHECK(a_program_open_for_writing_is_busy) {
    copy(SELF, "new", 0755);
    int fd = MUST(open("new", O_WRONLY));
    IS(run("new") == 104);
    MUST(close(fd));
    IS(run("new") == 0);
}

/* Starts a program that waits until the returned descriptor is closed. */
static int sleeping(const char *path, int *end) {
    int in[2], out[2];
    MUST(pipe2(in, O_CLOEXEC));
    MUST(pipe2(out, O_CLOEXEC));
    int child = MUST(fork());
    if (child == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl(path, path, "sleep", (char *)0);
        _exit(1);
    }
    char byte;
    close(out[1]);
    IS(read(out[0], &byte, 1) == 1);
    *end = in[1];
    return child;
}

CHECK(a_running_program_is_busy) {
    int end;
    copy(SELF, "new", 0755);
    int child = sleeping("./new", &end);
    REFUSED(open("new", O_WRONLY), ETXTBSY);
    REFUSED(truncate("new", 0), ETXTBSY);
    MUST(unlink("new"));
    close(end);
    IS(status_of(child) == 0);
}

CHECK(a_running_program_of_the_image_is_busy) {
    int end, child = sleeping("../../big/program", &end);
    REFUSED(open("../../big/program", O_WRONLY), ETXTBSY);
    close(end);
    IS(status_of(child) == 0);
}

/* What runs from a lower file goes on when that is replaced, as package managers do it. */
CHECK(a_running_program_is_replaced) {
    int end, child = sleeping("../../big/replaced", &end);
    copy(SELF, "new", 0755);
    MUST(rename("new", "../../big/replaced"));
    close(end);
    IS(status_of(child) == 0 && run("../../big/replaced") == 0);
}

/* Whether another process can have the lock: 0 yes, 1 no. */
static int is_flocked(const char *path, int how) {
    int child = MUST(fork());
    if (child == 0)
        _exit(flock(open(path, O_RDONLY | O_CLOEXEC), how | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    return status_of(child);
}

CHECK(flock_is_seen_by_others) {
    int fd = MUST(open("file", O_RDONLY));
    MUST(flock(fd, LOCK_SH));
    IS(!is_flocked("file", LOCK_SH) && is_flocked("file", LOCK_EX));
    MUST(flock(fd, LOCK_EX));
    IS(is_flocked("file", LOCK_SH));
    /* Also after it was copied up. */
    MUST(chmod("file", 0600));
    put("changed", "x");
    int writer = MUST(open("file", O_RDWR));
    IS(is_flocked("file", LOCK_SH));
    IS(flock(writer, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    MUST(flock(fd, LOCK_UN));
    IS(!is_flocked("file", LOCK_EX));
}

static int set(int fd, int command, short type, off_t from, off_t length) {
    struct flock lock = {.l_type = type, .l_start = from, .l_len = length};
    return fcntl(fd, command, &lock);
}

static int is_locked(const char *path, int command, off_t from, off_t length) {
    int child = MUST(fork());
    if (child == 0)
        _exit(set(open(path, O_RDWR | O_CLOEXEC), command, F_WRLCK, from, length) == -1 &&
              (errno == EAGAIN || errno == EACCES));
    return status_of(child);
}

CHECK(record_locks_are_seen_by_others) {
    int fd = MUST(open("data", O_RDWR));
    MUST(set(fd, F_SETLK, F_WRLCK, 100, 10));
    IS(is_locked("data", F_SETLK, 105, 1) && !is_locked("data", F_SETLK, 110, 10));
    IS(is_locked("data", F_OFD_SETLK, 100, 1));
    struct flock asked = {.l_type = F_WRLCK, .l_start = 0, .l_len = 0};
    int child = MUST(fork());
    if (child == 0) {
        int other = open("data", O_RDWR);
        _exit(!(fcntl(other, F_GETLK, &asked) == 0 && asked.l_type == F_WRLCK && asked.l_start == 100 &&
                asked.l_len == 10 && asked.l_pid == getppid()));
    }
    IS(status_of(child) == 0);
    MUST(set(fd, F_SETLK, F_UNLCK, 0, 0));
    IS(!is_locked("data", F_SETLK, 100, 10));
}

CHECK(locks_taken_before_copy_up_hold) {
    int fd = MUST(open("data", O_RDONLY));
    MUST(set(fd, F_SETLK, F_RDLCK, 0, 100));
    IS(is_locked("data", F_SETLK, 0, 1));
    int other = MUST(open("changed", O_RDONLY));
    MUST(set(other, F_OFD_SETLK, F_RDLCK, 0, 10));
    MUST(chmod("changed", 0600));
    IS(is_locked("changed", F_SETLK, 0, 1));
}

CHECK(open_file_description_locks) {
    int one = MUST(open("file", O_RDWR)), two = MUST(open("file", O_RDWR));
    MUST(set(one, F_OFD_SETLK, F_WRLCK, 0, 5));
    REFUSED(set(two, F_OFD_SETLK, F_RDLCK, 0, 1), EAGAIN);
    MUST(set(two, F_OFD_SETLK, F_WRLCK, 5, 5));
    MUST(close(one));
    MUST(set(two, F_OFD_SETLK, F_WRLCK, 0, 0));
}

/* A lock that is waited for comes when its holder lets go. */
CHECK(a_lock_is_waited_for) {
    int go[2], fd = MUST(open("file", O_RDWR));
    MUST(pipe(go));
    MUST(set(fd, F_SETLK, F_WRLCK, 0, 0));
    int child = MUST(fork());
    if (child == 0) {
        int other = open("file", O_RDWR);
        IS(write(go[1], "x", 1) == 1);
        _exit(set(other, F_SETLKW, F_WRLCK, 0, 0) == -1);
    }
    char byte;
    IS(read(go[0], &byte, 1) == 1);
    usleep(20000);
    MUST(set(fd, F_SETLK, F_UNLCK, 0, 0));
    IS(status_of(child) == 0);
}
