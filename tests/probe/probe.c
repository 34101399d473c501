/*
 * The attack probe: one static program that tries, one at a time, the calls with which programs have
 * left their sandboxes. It knows nothing about casemate.
 *
 *     cc -static -O1 -pthread -o probe probe.c
 *     probe COMMAND [ARGUMENT...]
 *
 * Every attempt prints one word: `ok`, the name of the errno (EPERM), or the name of the signal that
 * killed it (SIGSYS). Commands that try a list print one `name word` line for each; commands that only
 * report print what they found. The exit status is 0 when the attempt was made, 2 for a bad command line.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/io_uring.h>
#include <linux/kcmp.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* ---- saying what happened ---- */

static const char *word(long result) {
    if (result >= 0)
        return "ok";
    const char *name = strerrorname_np(errno);
    return name ? name : "unknown errno";
}

static void say(long result) { puts(word(result)); }

static void say_for(const char *name, long result) { printf("%s %s\n", name, word(result)); }

/*
 * Makes the attempt in a child, for calls that change the caller or are answered with a signal.
 * The attempt returns what a system call returns. The parent prints the word.
 */
static void in_child(const char *name, long (*attempt)(void *), void *argument) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(attempt(argument) >= 0 ? 0 : errno);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0) {
        printf("%s%sfork failed\n", name ? name : "", name ? " " : "");
        return;
    }
    if (name)
        printf("%s ", name);
    if (WIFSIGNALED(status))
        printf("SIG%s\n", sigabbrev_np(WTERMSIG(status)));
    else if (WEXITSTATUS(status) == 0)
        puts("ok");
    else
        puts(strerrorname_np(WEXITSTATUS(status)));
}

static long number(const char *text) {
    char *end;
    long value = (long)strtoull(text, &end, 0);
    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "probe: not a number: %s\n", text);
        exit(2);
    }
    return value;
}

/* ---- the terminal ---- */

/* tiocsti TEXT: pushes the text into the input of the terminal on descriptor 0. */
static void tiocsti(char **argv) {
    long result = 0;
    for (const char *c = argv[0]; *c && result >= 0; c++)
        result = syscall(SYS_ioctl, 0, (unsigned long)TIOCSTI, c);
    say(result);
}

/* tiocsti-high TEXT: the same with bits set above the 32 that the kernel looks at. */
static void tiocsti_high(char **argv) {
    long result = 0;
    for (const char *c = argv[0]; *c && result >= 0; c++)
        result = syscall(SYS_ioctl, 0, 0xdead000000000000UL | TIOCSTI, c);
    say(result);
}

/* ioctl COMMAND: with a pointer to zeroes, on descriptor 0. */
static void ioctl_raw(char **argv) {
    char argument[256] = {0};
    say(syscall(SYS_ioctl, 0, (unsigned long)number(argv[0]), argument));
}

/* tioclinux: the virtual console's paste. */
static void tioclinux(char **argv) {
    (void)argv;
    char paste = 3;
    say(syscall(SYS_ioctl, 0, (unsigned long)TIOCLINUX, &paste));
}

/* ---- descriptors and files ---- */

/* fds: the open descriptors on one line. */
static void fds(char **argv) {
    (void)argv;
    for (int fd = 0, first = 1; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) >= 0) {
            printf("%s%d", first ? "" : " ", fd);
            first = 0;
        }
    putchar('\n');
}

/* open PATH [read|write|path] */
static void open_path(char **argv) {
    int flags = O_RDONLY;
    if (argv[1] && strcmp(argv[1], "write") == 0)
        flags = O_WRONLY;
    if (argv[1] && strcmp(argv[1], "path") == 0)
        flags = O_PATH;
    say(open(argv[0], flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
}

/* openat FD PATH: what can be reached from an inherited descriptor. */
static void openat_fd(char **argv) {
    say(openat((int)number(argv[0]), argv[1], O_RDONLY | O_CLOEXEC));
}

/* read PATH: `ok N` with the number of bytes read (at most 64 KiB), or the errno. */
static void read_path(char **argv) {
    static char buffer[65536];
    int fd = open(argv[0], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd < 0 ? -1 : read(fd, buffer, sizeof buffer);
    if (got < 0)
        say(-1);
    else
        printf("ok %zd\n", got);
}

/* write PATH TEXT: creates the file if it is not there, and appends. */
static void write_path(char **argv) {
    int fd = open(argv[0], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    say(fd < 0 ? -1 : write(fd, argv[1], strlen(argv[1])));
}

/* mknod PATH: the device 1:3. */
static void mknod_path(char **argv) { say(mknod(argv[0], S_IFCHR | 0600, makedev(1, 3))); }

static long try_chroot(void *path) { return chroot(path); }
static void chroot_path(char **argv) { in_child(NULL, try_chroot, argv[0]); }

static void cwd(char **argv) {
    (void)argv;
    char path[4096];
    /* The system call and not the library's function, which would walk up where this one says "(unreachable)". */
    long result = syscall(SYS_getcwd, path, sizeof path);
    if (result < 0)
        say(result);
    else
        puts(path);
}

/* ---- namespaces and mounts ---- */

static const struct {
    const char *name;
    unsigned long flag;
} namespaces_known[] = {
    {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS},         {"pid", CLONE_NEWPID},   {"net", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},        {"time", CLONE_NEWTIME}, {"cgroup", CLONE_NEWCGROUP},
};
#define NAMESPACES (sizeof namespaces_known / sizeof *namespaces_known)

static long try_unshare(void *flag) { return unshare(*(unsigned long *)flag); }

/* A child made by the raw calls leaves at once; the caller reports. */
static long made(long child) {
    if (child == 0)
        _exit(0);
    if (child > 0)
        waitpid((pid_t)child, NULL, __WALL);
    return child;
}

static long try_clone(void *flag) {
    return made(syscall(SYS_clone, *(unsigned long *)flag | SIGCHLD, 0, 0, 0, 0));
}

static long try_clone_high(void *flag) {
    return made(syscall(SYS_clone, 0xdead000000000000UL | *(unsigned long *)flag | SIGCHLD, 0, 0, 0, 0));
}

static long try_clone3(void *flag) {
    struct clone_args arguments = {.flags = *(unsigned long *)flag, .exit_signal = SIGCHLD};
    return made(syscall(SYS_clone3, &arguments, sizeof arguments));
}

/* namespaces [unshare|clone|clone-high|clone3]: each kind, together with a user namespace. */
static void namespaces(char **argv) {
    static const struct {
        const char *name;
        long (*attempt)(void *);
    } ways[] = {{"unshare", try_unshare},
                {"clone", try_clone},
                {"clone-high", try_clone_high},
                {"clone3", try_clone3}};
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        if (argv[0] && strcmp(argv[0], ways[way].name) != 0)
            continue;
        for (size_t i = 0; i < NAMESPACES; i++) {
            char name[64];
            unsigned long flag = namespaces_known[i].flag;
            /* clone takes the low byte for the exit signal, so it cannot ask for a time namespace. */
            if (flag == CLONE_NEWTIME && strncmp(ways[way].name, "clone", 5) == 0 &&
                strcmp(ways[way].name, "clone3") != 0)
                continue;
            flag |= CLONE_NEWUSER;
            snprintf(name, sizeof name, "%s %s", ways[way].name, namespaces_known[i].name);
            in_child(name, ways[way].attempt, &flag);
        }
    }
}

static long try_setns(void *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : setns(fd, 0);
}
static void setns_path(char **argv) { in_child(NULL, try_setns, argv[0]); }

/* mount-api: each call of the file-descriptor mount interface, with arguments it would refuse or accept. */
static void mount_api(char **argv) {
    (void)argv;
    char attributes[32] = {0};
    say_for("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    say_for("fsconfig", syscall(SYS_fsconfig, -1, 0, 0, 0, 0));
    say_for("fsmount", syscall(SYS_fsmount, -1, 0, 0));
    say_for("fspick", syscall(SYS_fspick, AT_FDCWD, "/", 0));
    say_for("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */ | AT_RECURSIVE));
    say_for("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "/", 0));
    say_for("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, attributes, sizeof attributes));
}

/* mount TYPE TARGET */
static void mount_type(char **argv) { say(mount("none", argv[1], argv[0], 0, NULL)); }
/* bind SOURCE TARGET */
static void bind_mount(char **argv) { say(mount(argv[0], argv[1], NULL, MS_BIND, NULL)); }
/* remount TARGET: writable, and with set-uid and devices allowed. */
static void remount(char **argv) { say(mount(NULL, argv[0], NULL, MS_REMOUNT | MS_BIND, NULL)); }
static void umount_target(char **argv) { say(umount2(argv[0], MNT_DETACH)); }

/* ---- the kernel's surface ---- */

/* sockets: one line for every family from 0 to 50, stream or else datagram or else raw. */
static void sockets(char **argv) {
    (void)argv;
    for (int family = 0; family <= 50; family++) {
        static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET};
        int fd = -1;
        for (size_t i = 0; i < sizeof types / sizeof *types && fd < 0; i++)
            fd = socket(family, types[i] | SOCK_CLOEXEC, 0);
        printf("%d %s\n", family, word(fd));
        if (fd >= 0)
            close(fd);
    }
}

/* socket FAMILY TYPE PROTOCOL */
static void socket_one(char **argv) {
    say(socket((int)number(argv[0]), (int)number(argv[1]), (int)number(argv[2])));
}

static void uring(char **argv) {
    (void)argv;
    struct io_uring_params parameters = {0};
    say(syscall(SYS_io_uring_setup, 4, &parameters));
}

struct call {
    long number;
    long arguments[6];
};

#ifdef __x86_64__
static long try_int80(void *pointer) {
    struct call *call = pointer;
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(call->number), "b"(call->arguments[0]), "c"(call->arguments[1]), "d"(call->arguments[2])
                     : "r8", "r9", "r10", "r11", "memory");
    /* The entry returns -errno as a 32-bit number. */
    if ((int)result < 0 && (int)result > -4096) {
        errno = -(int)result;
        return -1;
    }
    return 0;
}
#endif

static long try_syscall(void *pointer) {
    struct call *call = pointer;
    long *a = call->arguments;
    return syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static struct call parse_call(char **argv) {
    struct call call = {.number = number(argv[0])};
    for (int i = 0; i < 6 && argv[1 + i]; i++)
        call.arguments[i] = number(argv[1 + i]);
    return call;
}

/* int80 NUMBER [ARGUMENT...]: through the 32-bit entry of a 64-bit program. */
static void int80(char **argv) {
#ifdef __x86_64__
    struct call call = parse_call(argv);
    in_child(NULL, try_int80, &call);
#else
    (void)argv;
    (void)parse_call;
    puts("not this architecture");
#endif
}

/* syscall NUMBER [ARGUMENT...]: 0x40000000 and above are x32's. */
static void syscall_raw(char **argv) {
    struct call call = parse_call(argv);
    in_child(NULL, try_syscall, &call);
}

/* surface: calls that no sandboxed program needs, each with arguments that are wrong or harmless. */
static void surface(char **argv) {
    (void)argv;
    say_for("bpf", syscall(SYS_bpf, 0, 0, 0));
    say_for("perf_event_open", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
    say_for("userfaultfd", syscall(SYS_userfaultfd, 0));
    say_for("add_key", syscall(SYS_add_key, 0, 0, 0, 0, 0));
    say_for("request_key", syscall(SYS_request_key, 0, 0, 0, 0));
    say_for("keyctl", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
    say_for("init_module", syscall(SYS_init_module, 0, 0, 0));
    say_for("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    say_for("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    say_for("swapon", syscall(SYS_swapon, 0, 0));
    say_for("acct", syscall(SYS_acct, 0));
    say_for("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, 0, 0));
    say_for("setns", syscall(SYS_setns, -1, 0));
    say_for("pivot_root", syscall(SYS_pivot_root, "/nowhere", "/nowhere"));
    say_for("kcmp", syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, 0, 1));
}

static void *nothing(void *argument) { return argument; }

/* threads: a thread is made and joined, so the fallback from clone3 to clone works. */
static void threads(char **argv) {
    (void)argv;
    pthread_t thread;
    errno = pthread_create(&thread, NULL, nothing, NULL);
    if (errno == 0)
        errno = pthread_join(thread, NULL);
    say(errno == 0 ? 0 : -1);
}

static long try_personality(void *persona) { return personality((unsigned long)number(persona)); }
static void set_personality(char **argv) { in_child(NULL, try_personality, argv[0]); }

/* ---- other processes ---- */

static long try_ptrace(void *pid) { return ptrace(PTRACE_ATTACH, (pid_t)number(pid), 0, 0); }
static void ptrace_pid(char **argv) { in_child(NULL, try_ptrace, argv[0]); }

static void kcmp_pid(char **argv) {
    pid_t pid = (pid_t)number(argv[0]);
    say(syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, 0, 0));
}

static void pidfd_getfd_pid(char **argv) {
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)number(argv[0]), 0);
    say(pidfd < 0 ? -1 : syscall(SYS_pidfd_getfd, pidfd, 0, 0));
}

/* vm-read PID ADDRESS */
static void vm_read(char **argv) {
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)number(argv[1]), 1};
    say(process_vm_readv((pid_t)number(argv[0]), &local, 1, &remote, 1, 0));
}

/* kill PID SIGNAL */
static void kill_pid(char **argv) { say(kill((pid_t)number(argv[0]), (int)number(argv[1]))); }

/* ---- keys, shared memory, sockets of others ---- */

/* key-search TYPE DESCRIPTION: in the session keyring; prints the serial number. */
static void key_search(char **argv) {
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, argv[0], argv[1], 0);
    if (key < 0)
        say(key);
    else
        printf("%ld\n", key);
}

/* key-read SERIAL: the contents. */
static void key_read(char **argv) {
    char contents[4096];
    long length = syscall(SYS_keyctl, KEYCTL_READ, number(argv[0]), contents, sizeof contents);
    if (length < 0)
        say(length);
    else
        printf("%.*s\n", (int)length, contents);
}

static void key_session(char **argv) {
    (void)argv;
    long key = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
    if (key < 0)
        say(key);
    else
        printf("%ld\n", key);
}

/* shm-get KEY: an existing segment; shm-make KEY: a new one. */
static void shm_get(char **argv) { say(shmget((key_t)number(argv[0]), 0, 0)); }
static void shm_make(char **argv) { say(shmget((key_t)number(argv[0]), 4096, IPC_CREAT | IPC_EXCL | 0600)); }
static void shm_remove(char **argv) {
    int id = shmget((key_t)number(argv[0]), 0, 0);
    say(id < 0 ? -1 : shmctl(id, IPC_RMID, NULL));
}

static long connect_unix(const char *name, int abstract) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    if (length + 1 >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path + (abstract ? 1 : 0), name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&address, size);
}
static void abstract(char **argv) { say(connect_unix(argv[0], 1)); }
static void unix_path(char **argv) { say(connect_unix(argv[0], 0)); }

/* ---- what this process is ---- */

/* status: the lines of /proc/self/status that say what the kernel would let it do. */
static void status(char **argv) {
    (void)argv;
    static const char *const wanted[] = {"CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"};
    char line[512];
    FILE *file = fopen("/proc/self/status", "re");
    if (!file) {
        say(-1);
        return;
    }
    while (fgets(line, sizeof line, file))
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
            if (strncmp(line, wanted[i], strlen(wanted[i])) == 0) {
                char *value = line + strlen(wanted[i]);
                printf("%s %s", wanted[i], value + strspn(value, "\t "));
            }
    fclose(file);
}

static void securebits(char **argv) {
    (void)argv;
    printf("%#x\n", (unsigned)prctl(PR_GET_SECUREBITS));
}

static void dumpable(char **argv) {
    (void)argv;
    printf("%d\n", prctl(PR_GET_DUMPABLE));
}

/* ids: real, effective and saved uid, then gid. */
static void ids(char **argv) {
    (void)argv;
    uid_t r, e, s;
    gid_t rg, eg, sg;
    getresuid(&r, &e, &s);
    getresgid(&rg, &eg, &sg);
    printf("%u %u %u %u %u %u\n", r, e, s, rg, eg, sg);
}

static long try_setuid(void *id) { return setuid((uid_t)number(id)); }
static void set_uid(char **argv) { in_child(NULL, try_setuid, argv[0]); }
static long try_setgid(void *id) { return setgid((gid_t)number(id)); }
static void set_gid(char **argv) { in_child(NULL, try_setgid, argv[0]); }
static long try_setgroups(void *id) {
    gid_t group = (gid_t)number(id);
    return setgroups(1, &group);
}
static void set_groups(char **argv) { in_child(NULL, try_setgroups, argv[0]); }

/* raise-cap NUMBER: into the ambient set, the last way back for a program without capabilities. */
static void raise_cap(char **argv) { say(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number(argv[0]), 0, 0)); }

/* core-limit: soft and hard. */
static void core_limit(char **argv) {
    (void)argv;
    struct rlimit limit;
    if (getrlimit(RLIMIT_CORE, &limit) < 0)
        say(-1);
    else
        printf("%lld %lld\n", (long long)limit.rlim_cur, (long long)limit.rlim_max);
}

/* exec PROGRAM: what the kernel makes of it. */
static void exec_program(char **argv) {
    execl(argv[0], argv[0], (char *)NULL);
    say(-1);
}

static void crash(char **argv) {
    (void)argv;
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

/* sleep SECONDS: says `ready` first. */
static void sleep_for(char **argv) {
    puts("ready");
    fflush(stdout);
    sleep((unsigned)number(argv[0]));
}

/* orphan SECONDS: leaves a process behind in a session of its own that ignores what can be ignored. */
static void orphan(char **argv) {
    fflush(stdout);
    if (fork() == 0) {
        setsid();
        for (int number = 1; number < NSIG; number++)
            signal(number, SIG_IGN);
        if (fork() == 0) {
            for (int fd = 0; fd < 3; fd++)
                close(fd);
            sleep((unsigned)number(argv[0]));
        }
        _exit(0);
    }
    wait(NULL);
    puts("ok");
}

/* memory MEGABYTES: touches that much. */
static void memory(char **argv) {
    size_t size = (size_t)number(argv[0]) << 20;
    char *block = malloc(size);
    if (block)
        memset(block, 1, size);
    say(block ? 0 : -1);
}

/* nofile: the number of descriptors that can be opened. */
static void nofile(char **argv) {
    (void)argv;
    int last = -1, fd;
    while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        last = fd;
    printf("%d\n", last + 1);
}

static const struct {
    const char *name;
    int arguments; /* the fewest it needs */
    void (*run)(char **argv);
} commands[] = {
    {"tiocsti", 1, tiocsti},
    {"tiocsti-high", 1, tiocsti_high},
    {"tioclinux", 0, tioclinux},
    {"ioctl", 1, ioctl_raw},
    {"fds", 0, fds},
    {"open", 1, open_path},
    {"openat", 2, openat_fd},
    {"read", 1, read_path},
    {"write", 2, write_path},
    {"mknod", 1, mknod_path},
    {"chroot", 1, chroot_path},
    {"cwd", 0, cwd},
    {"namespaces", 0, namespaces},
    {"setns", 1, setns_path},
    {"mount-api", 0, mount_api},
    {"mount", 2, mount_type},
    {"bind", 2, bind_mount},
    {"remount", 1, remount},
    {"umount", 1, umount_target},
    {"sockets", 0, sockets},
    {"socket", 3, socket_one},
    {"io-uring", 0, uring},
    {"int80", 1, int80},
    {"syscall", 1, syscall_raw},
    {"surface", 0, surface},
    {"threads", 0, threads},
    {"personality", 1, set_personality},
    {"ptrace", 1, ptrace_pid},
    {"kcmp", 1, kcmp_pid},
    {"pidfd-getfd", 1, pidfd_getfd_pid},
    {"vm-read", 2, vm_read},
    {"kill", 2, kill_pid},
    {"key-search", 2, key_search},
    {"key-read", 1, key_read},
    {"key-session", 0, key_session},
    {"shm-get", 1, shm_get},
    {"shm-make", 1, shm_make},
    {"shm-remove", 1, shm_remove},
    {"abstract", 1, abstract},
    {"unix", 1, unix_path},
    {"status", 0, status},
    {"securebits", 0, securebits},
    {"dumpable", 0, dumpable},
    {"ids", 0, ids},
    {"setuid", 1, set_uid},
    {"setgid", 1, set_gid},
    {"setgroups", 1, set_groups},
    {"raise-cap", 1, raise_cap},
    {"core-limit", 0, core_limit},
    {"exec", 1, exec_program},
    {"crash", 0, crash},
    {"sleep", 1, sleep_for},
    {"orphan", 1, orphan},
    {"memory", 1, memory},
    {"nofile", 0, nofile},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0 && argc - 2 >= commands[i].arguments) {
            commands[i].run(argv + 2);
            return 0;
        }
    fprintf(stderr, "usage: probe COMMAND [ARGUMENT...]; commands:");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(stderr, " %s", commands[i].name);
    fputc('\n', stderr);
    return 2;
}
