/*
 *     probe list                 the names of the checks, one on a line
 *     probe run ROOT [NAME...]   runs them, each in ROOT/NAME; prints `NAME ok` or `NAME ERRNO: what
 *                                was tried (file:line)` for each
 *     probe say [WORD...]        prints `said`: what checks execute
 *     probe sleep                prints a line and waits for the end of its input
 */
#include "probe.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

/* How long one check may take, in seconds. */
#define PATIENCE 60

static struct check *first, **last = &first;
static const char *current = "?", *root = "/";

void add(struct check *check) {
    *last = check;
    last = &check->next;
}

const char *places(void) { return root; }

_Noreturn void fail(const char *file, int line, const char *what, int error) {
    const char *name = error ? strerrorname_np(error) : 0;
    const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    printf("%s %s%s%s (%s:%d)\n", current, name ? name : "", name ? ": " : "", what, base, line);
    fflush(stdout);
    _exit(1);
}

const char *text_of(int fd) {
    static char buffer[1 << 16];
    ssize_t count = MUST(pread(fd, buffer, sizeof buffer - 1, 0));
    buffer[count] = 0;
    return buffer;
}

const char *text(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(__FILE__, __LINE__, path, errno);
    const char *found = text_of(fd);
    close(fd);
    return found;
}

void put(const char *path, const char *contents) {
    int fd = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    IS(write(fd, contents, strlen(contents)) == (ssize_t)strlen(contents));
    MUST(close(fd));
}

int is_there(const char *path) {
    struct stat unused;
    return lstat(path, &unused) == 0;
}

struct stat state(const char *path) {
    struct stat found;
    MUST(lstat(path, &found));
    return found;
}

struct stat state_of(int fd) {
    struct stat found;
    MUST(fstat(fd, &found));
    return found;
}

static int is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

int names_in(const char *path) {
    DIR *dir = opendir(path);
    if (!dir)
        fail(__FILE__, __LINE__, path, errno);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += !is_dot(entry->d_name);
    closedir(dir);
    return count;
}

int listed(const char *path, const char *name) {
    DIR *dir = opendir(path);
    if (!dir)
        fail(__FILE__, __LINE__, path, errno);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += !strcmp(entry->d_name, name);
    closedir(dir);
    return count;
}

static void remove_at(int parent, const char *name) {
    int fd = MUST(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    DIR *dir = fdopendir(fd);
    IS(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (is_dot(entry->d_name))
            continue;
        if (entry->d_type == DT_DIR)
            remove_at(fd, entry->d_name);
        else
            MUST(unlinkat(fd, entry->d_name, 0));
    }
    closedir(dir);
    MUST(unlinkat(parent, name, AT_REMOVEDIR));
}

void remove_tree(const char *path) { remove_at(AT_FDCWD, path); }

int status_of(int child) {
    int status = 0;
    MUST(waitpid(child, &status, 0));
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void copy(const char *from, const char *to, mode_t mode) {
    static char buffer[1 << 16];
    int in = MUST(open(from, O_RDONLY | O_CLOEXEC));
    int out = MUST(open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    for (ssize_t count; (count = MUST(read(in, buffer, sizeof buffer))) > 0;)
        IS(write(out, buffer, count) == count);
    MUST(close(out));
    MUST(close(in));
}

/* Runs one check; how it ended is on stdout. */
static void run(struct check *check) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        current = check->name;
        umask(022);
        signal(SIGPIPE, SIG_IGN);
        alarm(PATIENCE);
        MUST(chdir(root));
        MUST(chdir(check->name));
        check->run();
        printf("%s ok\n", current);
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0)
        printf("%s fork failed\n", check->name);
    else if (WIFSIGNALED(status))
        printf("%s SIG%s\n", check->name, sigabbrev_np(WTERMSIG(status)));
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    if (!strcmp(argv[1], "say")) {
        puts("said");
    } else if (!strcmp(argv[1], "sleep")) {
        char byte;
        puts("here");
        fflush(stdout);
        while (read(0, &byte, 1) > 0)
            ;
    } else if (!strcmp(argv[1], "list")) {
        for (struct check *check = first; check; check = check->next)
            puts(check->name);
    } else if (!strcmp(argv[1], "run") && argc > 2) {
        root = argv[2];
        for (struct check *check = first; check; check = check->next) {
            int wanted = argc == 3;
            for (int at = 3; at < argc; at++)
                wanted |= !strcmp(argv[at], check->name);
            if (wanted)
                run(check);
        }
    } else {
        return 2;
    }
    return 0;
}
