/*
 * The least that a box can cost: one clone with all namespaces, the id map, and an exec.
 *
 *     bare PROGRAM [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(const char *path, const char *text, int length) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, (size_t)length) != length) {
        perror(path);
        _exit(125);
    }
    close(fd);
}

int main(int argc, char **argv) {
    char uids[64], gids[64];
    int uid_length = snprintf(uids, sizeof uids, "%u %u 1\n", getuid(), getuid());
    int gid_length = snprintf(gids, sizeof gids, "%u %u 1\n", getgid(), getgid());
    struct clone_args arguments = {
        .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    long child = argc < 2 ? -1 : syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) {
        put("/proc/self/setgroups", "deny", 4);
        put("/proc/self/uid_map", uids, uid_length);
        put("/proc/self/gid_map", gids, gid_length);
        execv(argv[1], argv + 1);
        _exit(127);
    }
    int status;
    if (child < 0 || waitpid((pid_t)child, &status, 0) < 0) {
        perror("bare");
        return 125;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
