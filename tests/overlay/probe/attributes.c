/* Modes, times, owners, numbers, and extended attributes. */
#include "probe.h"

#include <sys/statvfs.h>
#include <sys/xattr.h>

CHECK(modes_are_changed) {
    MUST(chmod("file", 0751));
    IS((state("file").st_mode & 07777) == 0751 && !strcmp(text("file"), "lower one\n"));
    MUST(chmod("dir", 01770));
    IS((state("dir").st_mode & 07777) == 01770 && names_in("dir") == 3);
    int fd = MUST(open("changed", O_RDONLY));
    MUST(fchmod(fd, 0604));
    IS((state("changed").st_mode & 07777) == 0604 && (state_of(fd).st_mode & 07777) == 0604);
    MUST(chmod("link", 0611));
    IS((state("file").st_mode & 07777) == 0611 && S_ISLNK(state("link").st_mode));
    REFUSED(chmod("missing", 0600), ENOENT);
    REFUSED(chmod("dangling", 0600), ENOENT);
    REFUSED(chmod("file/x", 0600), ENOTDIR);
}

CHECK(the_setuid_bit_is_set_and_cleared) {
    put("new", "x");
    MUST(chmod("new", 06755));
    IS((state("new").st_mode & 07777) == 06755);
    int fd = MUST(open("new", O_WRONLY));
    IS(write(fd, "y", 1) == 1);
    IS((state("new").st_mode & 07777) == 0755);
    MUST(chmod("file", 04755));
    MUST(truncate("file", 2));
    IS((state("file").st_mode & 07777) == 0755);
    MUST(mkdir("group", 02775));
    MUST(chmod("group", 02775));
    IS((state("group").st_mode & 07777) == 02775);
}

CHECK(the_setuid_bit_of_the_image_is_seen) { IS((state("setuid").st_mode & 07777) == 04755); }

CHECK(modes_of_the_image_are_seen) {
    IS((state("data").st_mode & 07777) == 0640 && (state("script").st_mode & 07777) == 0755);
    IS((state("dir").st_mode & 07777) == 0755 && (state("sticky").st_mode & 07777) == 01777);
    IS((state("read-only").st_mode & 07777) == 0444);
}

CHECK(the_mask_holds) {
    umask(027);
    put("new", "x");
    MUST(mkdir("made", 0777));
    MUST(mkfifo("pipe", 0666));
    IS((state("new").st_mode & 07777) == 0640);
    IS((state("made").st_mode & 07777) == 0750 && (state("pipe").st_mode & 07777) == 0640);
}

static int is_time(struct timespec time, long seconds, long nanoseconds) {
    return time.tv_sec == seconds && time.tv_nsec == nanoseconds;
}

CHECK(times_of_the_image_have_nanoseconds) {
    IS(is_time(state("file").st_mtim, 1000000000, 123456789));
    IS(is_time(state("dir").st_mtim, 1000000000, 987654321));
    IS(is_time(state("link").st_mtim, 1000000000, 5));
    IS(is_time(state("before-1970").st_mtim, -100, 0));
}

CHECK(times_survive_copy_up) {
    MUST(chmod("file", 0600));
    IS(is_time(state("file").st_mtim, 1000000000, 123456789));
    MUST(setxattr("before-1970", "user.x", "y", 1, 0));
    IS(is_time(state("before-1970").st_mtim, -100, 0));
    MUST(open("changed", O_WRONLY));
    IS(is_time(state("changed").st_mtim, 1000000001, 1));
    /* A child that is copied up changes nothing about its directory. */
    MUST(chmod("dir/a", 0600));
    IS(is_time(state("dir").st_mtim, 1000000000, 987654321));
    MUST(chmod("merged", 0700));
    IS(is_time(state("merged").st_mtim, 1000000002, 2));
}

CHECK(times_are_set) {
    struct timespec times[2] = {{7, 1}, {8, 999999999}};
    MUST(utimensat(AT_FDCWD, "file", times, 0));
    IS(is_time(state("file").st_mtim, 8, 999999999) && is_time(state("file").st_atim, 7, 1));
    IS(!strcmp(text("file"), "lower one\n"));
    MUST(utimensat(AT_FDCWD, "dir", times, 0));
    IS(is_time(state("dir").st_mtim, 8, 999999999));
    MUST(utimensat(AT_FDCWD, "link", times, AT_SYMLINK_NOFOLLOW));
    IS(is_time(state("link").st_mtim, 8, 999999999) && S_ISLNK(state("link").st_mode));
    struct timespec only[2] = {{0, UTIME_OMIT}, {9, 9}};
    MUST(futimens(MUST(open("changed", O_RDONLY)), only));
    IS(is_time(state("changed").st_mtim, 9, 9));
    struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
    MUST(utimensat(AT_FDCWD, "data", now, 0));
    IS(state("data").st_mtim.tv_sec > 1700000000);
    struct timespec negative[2] = {{-5, 1}, {-5, 1}};
    MUST(utimensat(AT_FDCWD, "data", negative, 0));
    IS(is_time(state("data").st_mtim, -5, 1));
}

CHECK(times_move_when_something_is_done) {
    struct stat file = state("file"), dir = state("dir");
    int fd = MUST(open("file", O_WRONLY));
    IS(write(fd, "x", 1) == 1);
    IS(state("file").st_mtim.tv_sec > file.st_mtim.tv_sec);
    IS(state_of(fd).st_mtim.tv_sec == state("file").st_mtim.tv_sec);
    put("dir/new", "x");
    IS(state("dir").st_mtim.tv_sec > dir.st_mtim.tv_sec);
    struct timespec old[2] = {{1, 0}, {1, 0}};
    MUST(utimensat(AT_FDCWD, "dir", old, 0));
    MUST(unlink("dir/a"));
    IS(state("dir").st_mtim.tv_sec > 1);
    MUST(utimensat(AT_FDCWD, "dir", old, 0));
    MUST(rename("dir/b", "dir/c"));
    IS(state("dir").st_mtim.tv_sec > 1);
    MUST(utimensat(AT_FDCWD, "changed", old, 0));
    struct timespec changed = state("changed").st_ctim;
    IS(changed.tv_sec > 1700000000);
}

CHECK(birth_times) {
    struct statx found;
    put("new", "x");
    MUST(statx(AT_FDCWD, "new", 0, STATX_BASIC_STATS | STATX_BTIME, &found));
    IS((found.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    IS(!(found.stx_mask & STATX_BTIME) || found.stx_btime.tv_sec > 1700000000);
    MUST(statx(AT_FDCWD, "file", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &found));
    IS(found.stx_size == 10 && found.stx_mtime.tv_nsec == 123456789);
    MUST(statx(AT_FDCWD, "file", AT_STATX_DONT_SYNC, STATX_SIZE, &found));
    IS(found.stx_size == 10);
}

CHECK(owners) {
    struct stat file = state("file"), dir = state("dir");
    IS(file.st_uid == getuid() && file.st_gid == getgid() && dir.st_uid == getuid());
    IS(state("link").st_uid == getuid() && state("fifo").st_uid == getuid());
    MUST(chown("file", getuid(), getgid()));
    MUST(chown("dir", -1, getgid()));
    MUST(lchown("link", getuid(), -1));
    IS(chown("changed", 0, 0) == -1 && (errno == EPERM || errno == EINVAL));
    IS(!strcmp(text("file"), "lower one\n"));
    put("new", "x");
    IS(state("new").st_uid == getuid() && state("new").st_gid == getgid());
}

static int is_same(struct stat one, struct stat two) {
    return one.st_ino == two.st_ino && one.st_dev == two.st_dev;
}

/* Only small files: a store may keep one large file for several images as hard links. */
CHECK(numbers_of_files_stay) {
    struct stat file = state("file"), other = state("changed"), link = state("link");
    int fd = MUST(open("file", O_RDONLY));
    put("file", "changed");
    IS(is_same(file, state("file")));
    IS(is_same(file, state_of(fd)));
    MUST(chmod("changed", 0600));
    IS(is_same(other, state("changed")));
    struct timespec times[2] = {{1, 0}, {1, 0}};
    MUST(utimensat(AT_FDCWD, "link", times, AT_SYMLINK_NOFOLLOW));
    IS(is_same(link, state("link")));
    MUST(rename("changed", "dir/moved"));
    IS(is_same(other, state("dir/moved")));
}

CHECK(numbers_of_directories_stay) {
    struct stat dir = state("dir"), merged = state("merged"), sub = state("dir/sub");
    put("dir/new", "x");
    MUST(chmod("merged", 0700));
    put("dir/sub/new", "x");
    IS(is_same(dir, state("dir")) && is_same(merged, state("merged")));
    IS(is_same(sub, state("dir/sub")));
}

CHECK(numbers_are_the_files_own) {
    const char *names[] = {"file", "data", "changed", "dir", "merged", "merged/one", "merged/two",
                           "merged/three", "dir/a", "dir/b", "dir/sub", "opaque", "new", "."};
    int number = sizeof names / sizeof *names;
    put("new", "x");
    for (int one = 0; one < number; one++)
        for (int two = 0; two < one; two++)
            IS(!is_same(state(names[one]), state(names[two])));
}

CHECK(one_device_for_all) {
    dev_t device = state(".").st_dev;
    put("new", "x");
    IS(state("dir").st_dev == device && state("new").st_dev == device);
    IS(state("file").st_dev == device && state("changed").st_dev == device);
    IS(state("merged/three").st_dev == device && state("link").st_dev == device);
}

CHECK(blocks_are_counted) {
    IS(state("data").st_blocks >= 128 && state("data").st_blocks < 1024);
    put("new", "x");
    IS(state("new").st_blocks > 0 && state("new").st_blksize >= 512);
    IS(state("file").st_blocks > 0);
}

CHECK(attributes_are_read) {
    char value[100] = "";
    IS(getxattr("file", "user.first", value, sizeof value) == 3 && !memcmp(value, "one", 3));
    REFUSED(getxattr("file", "user.missing", value, sizeof value), ENODATA);
    REFUSED(getxattr("data", "user.first", value, sizeof value), ENODATA);
    REFUSED(getxattr("file", "user.first", value, 2), ERANGE);
    IS(getxattr("file", "user.first", value, 0) == 3);
    IS(getxattr("dir", "user.of-dir", value, sizeof value) == 3);
    REFUSED(getxattr("missing", "user.first", value, sizeof value), ENOENT);
    REFUSED(lgetxattr("link", "user.first", value, sizeof value), ENODATA);
    IS(fgetxattr(MUST(open("file", O_RDONLY)), "user.second", value, sizeof value) == 1);
}

/* How often the attribute is listed; with no name, how many are. Asked without a buffer the kernel's
 * overlay counts its own with them, which is why nobody asks so here. */
static int has_name(const char *path, const char *name) {
    static char names[4096];
    ssize_t length = MUST(llistxattr(path, names, sizeof names));
    int count = 0;
    for (char *at = names; at < names + length; at += strlen(at) + 1)
        count += !name || !strcmp(at, name);
    return count;
}

CHECK(attributes_are_listed) {
    IS(has_name("file", "user.first") == 1 && has_name("file", "user.second") == 1);
    IS(has_name("dir", "user.of-dir") == 1 && has_name("data", "user.first") == 0);
    put("new", "x");
    IS(!has_name("new", 0));
    IS(!has_name("link", 0));
    char small[3];
    REFUSED(listxattr("file", small, 3), ERANGE);
}

CHECK(attributes_are_set_and_removed) {
    char value[3000];
    MUST(setxattr("file", "user.third", "3", 1, XATTR_CREATE));
    IS(has_name("file", "user.first") == 1 && has_name("file", "user.third") == 1);
    REFUSED(setxattr("file", "user.third", "3", 1, XATTR_CREATE), EEXIST);
    MUST(setxattr("file", "user.first", "changed", 7, XATTR_REPLACE));
    IS(getxattr("file", "user.first", value, sizeof value) == 7 && !memcmp(value, "changed", 7));
    REFUSED(setxattr("file", "user.fourth", "4", 1, XATTR_REPLACE), ENODATA);
    MUST(removexattr("file", "user.second"));
    IS(has_name("file", "user.second") == 0);
    REFUSED(removexattr("file", "user.second"), ENODATA);
    REFUSED(getxattr("file", "user.second", value, sizeof value), ENODATA);
    MUST(removexattr("dir", "user.of-dir"));
    REFUSED(getxattr("dir", "user.of-dir", value, sizeof value), ENODATA);
    memset(value, 'v', 2000);
    MUST(fsetxattr(MUST(open("changed", O_RDONLY)), "user.long", value, 2000, 0));
    IS(getxattr("changed", "user.long", 0, 0) == 2000);
    IS(!strcmp(text("file"), "lower one\n") && !strcmp(text("changed"), "second\n"));
    put("new", "x");
    MUST(setxattr("new", "user.empty", "", 0, 0));
    IS(getxattr("new", "user.empty", value, sizeof value) == 0 && has_name("new", "user.empty") == 1);
    MUST(rename("new", "dir/new"));
    IS(has_name("dir/new", "user.empty") == 1);
}

CHECK(attributes_survive_copy_up) {
    char value[10];
    put("file", "changed");
    IS(getxattr("file", "user.first", value, sizeof value) == 3 && !memcmp(value, "one", 3));
    IS(has_name("file", "user.second") == 1);
    MUST(mkdir("dir/made", 0700));
    IS(getxattr("dir", "user.of-dir", value, sizeof value) == 3);
    IS(!has_name("dir/made", 0));
}

CHECK(attributes_of_others_are_refused) {
    REFUSED(setxattr("file", "trusted.x", "y", 1, 0), EPERM);
    REFUSED(setxattr("file", "security.capability", "y", 1, 0), EINVAL);
    REFUSED(setxattr("file", "nothing.x", "y", 1, 0), EOPNOTSUPP);
    REFUSED(lsetxattr("link", "user.x", "y", 1, 0), EPERM);
    REFUSED(setxattr("fifo", "user.x", "y", 1, 0), EPERM);
}

/* What the overlays themselves keep in attributes is not the program's business. */
CHECK(marks_of_the_layers_are_hidden) {
    IS(!has_name("setuid", "user.containers.override_stat"));
}

CHECK(marks_of_the_overlay_are_hidden) {
    IS(!has_name("opaque", "user.overlay.opaque"));
    MUST(mkdir("gonedir", 0700));
    IS(!has_name("gonedir", 0));
    put("file", "x");
    remove_tree("dir");
    MUST(mkdir("dir", 0700));
    IS(!has_name("dir", 0));
}

/* A program that writes such marks does not deceive the overlay. */
CHECK(marks_of_a_program_mean_nothing) {
    int done = setxattr("merged", "user.overlay.opaque", "y", 1, 0);
    IS(done == 0 || errno == EPERM || errno == EOPNOTSUPP);
    IS(names_in("merged") == 3);
    done = setxattr("dir", "user.overlay.redirect", "/etc", 4, 0);
    IS(done == 0 || errno == EPERM || errno == EOPNOTSUPP);
    IS(names_in("dir") == 3);
    done = setxattr("data", "user.overlay.metacopy", "", 0, 0);
    IS(done == 0 || errno == EPERM || errno == EOPNOTSUPP);
    IS(state("data").st_size == 65536);
}

/* A list of the owner, the program's own id, the group, the mask and others, as acl(5) has it. */
static size_t acl(char *into, unsigned mask) {
    struct entry {
        uint16_t tag, bits;
        uint32_t id;
    } entries[] = {{1, 6, -1}, {2, 7, getuid()}, {4, 4, -1}, {16, mask, -1}, {32, 0, -1}};
    memcpy(into, &(uint32_t){2}, 4);
    memcpy(into + 4, entries, sizeof entries);
    return 4 + sizeof entries;
}

CHECK(access_lists) {
    char list[100], found[100];
    size_t length = acl(list, 5);
    MUST(setxattr("file", "system.posix_acl_access", list, length, 0));
    IS(getxattr("file", "system.posix_acl_access", found, sizeof found) == (ssize_t)length);
    IS(!memcmp(list, found, length) && has_name("file", "system.posix_acl_access") == 1);
    IS((state("file").st_mode & 0777) == 0650);
    MUST(chmod("file", 0620));
    IS(getxattr("file", "system.posix_acl_access", found, sizeof found) == (ssize_t)length);
    IS(found[4 + 3 * 8 + 2] == 2);
    MUST(setxattr("dir", "system.posix_acl_default", list, length, 0));
    put("dir/new", "x");
    IS(getxattr("dir/new", "system.posix_acl_access", found, sizeof found) == (ssize_t)length);
    MUST(removexattr("file", "system.posix_acl_access"));
    REFUSED(getxattr("file", "system.posix_acl_access", found, sizeof found), ENODATA);
    REFUSED(setxattr("file", "system.posix_acl_default", list, length, 0), EACCES);
}
