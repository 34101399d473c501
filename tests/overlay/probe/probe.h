/*
 * The file system probe: many small checks of what ordinary programs expect of a file system. It knows
 * nothing about overlays. Each check runs in a process of its own and in a directory of its own, which
 * tests/overlay/layers.rs fills alike for every check; see there for what is in it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct check {
    const char *name;
    void (*run)(void);
    struct check *next;
};

void add(struct check *check);

/* Defines a check and puts it on the list. */
#define CHECK(name)                                                                                \
    static void name(void);                                                                        \
    static struct check check_##name = {#name, name, 0};                                           \
    __attribute__((constructor)) static void add_##name(void) { add(&check_##name); }              \
    static void name(void)

/* Ends the check with what was expected and the errno that came instead, 0 if it is not one. */
_Noreturn void fail(const char *file, int line, const char *what, int error);

/* A call that must succeed; its result. */
#define MUST(call)                                                                                 \
    ({                                                                                             \
        errno = 0;                                                                                 \
        intptr_t result_ = (intptr_t)(call);                                                       \
        if (result_ == -1)                                                                         \
            fail(__FILE__, __LINE__, #call, errno);                                                \
        result_;                                                                                   \
    })

/* A call that must fail with this errno. */
#define REFUSED(call, number)                                                                      \
    do {                                                                                           \
        errno = 0;                                                                                 \
        intptr_t result_ = (intptr_t)(call);                                                       \
        if (result_ != -1)                                                                         \
            fail(__FILE__, __LINE__, "not refused: " #call, 0);                                    \
        if (errno != (number))                                                                     \
            fail(__FILE__, __LINE__, "not " #number ": " #call, errno);                            \
    } while (0)

/* What must hold. */
#define IS(condition)                                                                              \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail(__FILE__, __LINE__, "not: " #condition, 0);                                       \
    } while (0)

/* The whole of a small file, in a buffer that the next call reuses; fails if it cannot be read. */
const char *text(const char *path);
/* Reads that descriptor from its beginning, as `text`. */
const char *text_of(int fd);
/* Writes a file anew. */
void put(const char *path, const char *contents);
/* Whether something is there, a symbolic link counts itself. */
int is_there(const char *path);
struct stat state(const char *path);
struct stat state_of(int fd);
/* How many names a directory has, without . and .. ; the sum of their lengths is checked twice. */
int names_in(const char *path);
/* Whether reading the directory gives the name, and how often. */
int listed(const char *path, const char *name);
/* Removes a tree as rm -rf does: by reading each directory while unlinking from it. */
void remove_tree(const char *path);
/* Runs this program again with one argument and returns its exit status. */
int status_of(int child);
/* Where the program itself is, to be executed or copied. */
#define SELF "/proc/self/exe"
/* Copies a file, with its mode; by read and write. */
void copy(const char *from, const char *to, mode_t mode);
/* The image's own places. */
const char *places(void);
