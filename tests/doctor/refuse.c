/* refuse NAME=ERRNO … -- COMMAND …: runs a command under a filter that refuses system calls, as a
 * container's does. An ERRNO of "kill" ends the process instead. `clone-namespaces` is clone(2) with
 * a flag of a namespace. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

/* CLONE_NEWTIME is not a flag of clone(2). */
#define NAMESPACES 0x7e020000u

static const struct { const char *name; int number; } CALLS[] = {
    {"clone-namespaces", SYS_clone}, {"clone3", SYS_clone3},
    {"unshare", SYS_unshare}, {"setns", SYS_setns}, {"mount", SYS_mount},
    {"umount2", SYS_umount2}, {"pivot_root", SYS_pivot_root}, {"fsopen", SYS_fsopen},
    {"fsconfig", SYS_fsconfig}, {"fsmount", SYS_fsmount}, {"open_tree", SYS_open_tree},
    {"move_mount", SYS_move_mount}, {"mount_setattr", SYS_mount_setattr},
    {"keyctl", SYS_keyctl}, {"landlock_create_ruleset", SYS_landlock_create_ruleset},
};

static const struct { const char *name; unsigned action; } ACTIONS[] = {
    {"EPERM", SECCOMP_RET_ERRNO | EPERM}, {"EACCES", SECCOMP_RET_ERRNO | EACCES},
    {"ENOSYS", SECCOMP_RET_ERRNO | ENOSYS}, {"EOPNOTSUPP", SECCOMP_RET_ERRNO | EOPNOTSUPP},
    {"kill", SECCOMP_RET_KILL_PROCESS},
};

static struct sock_filter program[256];
static unsigned short length;

static void add(unsigned short code, unsigned k, unsigned char jt, unsigned char jf)
{
    program[length++] = (struct sock_filter){code, jt, jf, k};
}

static void refuse(const char *rule)
{
    const char *sign = strchr(rule, '=');
    int number = -1;
    unsigned action = 0;
    for (size_t i = 0; sign && i < sizeof CALLS / sizeof *CALLS; i++)
        if (strlen(CALLS[i].name) == (size_t)(sign - rule) && !strncmp(CALLS[i].name, rule, sign - rule))
            number = CALLS[i].number;
    for (size_t i = 0; sign && i < sizeof ACTIONS / sizeof *ACTIONS; i++)
        if (!strcmp(ACTIONS[i].name, sign + 1))
            action = ACTIONS[i].action;
    if (number < 0 || !action) {
        fprintf(stderr, "refuse: %s\n", rule);
        exit(125);
    }
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
    if (number == SYS_clone) {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3);
        add(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]), 0, 0);
        add(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1);
    } else {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    }
    add(BPF_RET | BPF_K, action, 0, 0);
}

int main(int argc, char **argv)
{
    int at = 1;
    for (; at < argc && strcmp(argv[at], "--"); at++)
        refuse(argv[at]);
    if (at + 1 >= argc)
        return 125;
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    struct sock_fprog filter = {length, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("refuse");
        return 125;
    }
    execvp(argv[at + 1], argv + at + 1);
    perror(argv[at + 1]);
    return 127;
}
