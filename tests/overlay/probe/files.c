/* Opening, reading and writing; files without a name; holes; copies in the kernel. */
#include "probe.h"

#include <dirent.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <signal.h>

CHECK(lower_files_are_read) {
    IS(!strcmp(text("file"), "lower one\n"));
    IS(state("file").st_size == 10);
    char piece[4] = "";
    int fd = MUST(open("file", O_RDONLY));
    IS(pread(fd, piece, 3, 6) == 3 && !strcmp(piece, "one"));
    IS(pread(fd, piece, 3, 10) == 0);
    IS(lseek(fd, 0, SEEK_END) == 10);
    REFUSED(write(fd, "x", 1), EBADF);
    struct stat data = state("data");
    IS(data.st_size == 65536 && (data.st_mode & 07777) == 0640);
}

CHECK(later_layers_replace_and_remove) {
    IS(!strcmp(text("changed"), "second\n"));
    REFUSED(open("gone", O_RDONLY), ENOENT);
    REFUSED(open("gonedir/one", O_RDONLY), ENOENT);
    IS(!is_there("gonedir") && !listed(".", "gone") && !listed(".", "gonedir"));
    IS(names_in("opaque") == 1 && !strcmp(text("opaque/shared"), "second\n"));
    IS(!is_there("opaque/hidden"));
    IS(names_in("merged") == 3);
    IS(!strcmp(text("merged/one"), "first\n") && !strcmp(text("merged/two"), "second\n"));
    IS(!strcmp(text("merged/three"), "third\n"));
    IS(names_in("again") == 1 && !strcmp(text("again/new"), "third\n"));
    IS(S_ISREG(state("became-file").st_mode) && S_ISDIR(state("became-dir").st_mode));
    IS(names_in("became-dir") == 1);
}

CHECK(write_in_place) {
    int fd = MUST(open("file", O_RDWR));
    IS(pwrite(fd, "two", 3, 6) == 3);
    IS(!strcmp(text_of(fd), "lower two\n"));
    MUST(close(fd));
    IS(!strcmp(text("file"), "lower two\n"));
    fd = MUST(open("data", O_WRONLY));
    IS(pwrite(fd, "X", 1, 40000) == 1);
    MUST(close(fd));
    char around[3];
    fd = MUST(open("data", O_RDONLY));
    IS(pread(fd, around, 3, 39999) == 3 && around[1] == 'X');
    IS(around[0] == (char)(39999 % 251) && around[2] == (char)(40001 % 251));
    IS(state("data").st_size == 65536);
}

CHECK(append) {
    int one = MUST(open("file", O_WRONLY | O_APPEND)), two = MUST(open("file", O_WRONLY | O_APPEND));
    IS(write(one, "a", 1) == 1 && write(two, "b", 1) == 1 && write(one, "c", 1) == 1);
    IS(!strcmp(text("file"), "lower one\nabc"));
    int fd = MUST(open("created", O_WRONLY | O_CREAT | O_APPEND, 0600));
    IS(write(fd, "x", 1) == 1 && pwrite(fd, "y", 1, 0) == 1);
    IS(!strcmp(text("created"), "xy"));
}

CHECK(truncate_shortens_and_lengthens) {
    MUST(truncate("file", 5));
    IS(!strcmp(text("file"), "lower"));
    MUST(truncate("data", 100000));
    int fd = MUST(open("data", O_RDWR));
    char bytes[2];
    IS(pread(fd, bytes, 2, 65535) == 2 && bytes[0] == (char)(65535 % 251) && bytes[1] == 0);
    MUST(ftruncate(fd, 0));
    IS(state("data").st_size == 0 && state_of(fd).st_size == 0);
    MUST(close(MUST(open("changed", O_WRONLY | O_TRUNC))));
    IS(state("changed").st_size == 0);
    REFUSED(truncate("dir", 0), EISDIR);
    REFUSED(truncate("file", -1), EINVAL);
    REFUSED(ftruncate(MUST(open("file", O_RDONLY)), 0), EINVAL);
}

CHECK(exclusive_creation) {
    REFUSED(open("file", O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
    REFUSED(open("dangling", O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
    REFUSED(open("dir", O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
    MUST(open("gone", O_WRONLY | O_CREAT | O_EXCL, 0600));
    REFUSED(open("gone", O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
    IS(state("gone").st_size == 0 && listed(".", "gone") == 1);
    MUST(unlink("file"));
    MUST(open("file", O_WRONLY | O_CREAT | O_EXCL, 0600));
    IS(state("file").st_size == 0 && (state("file").st_mode & 07777) == 0600);
    /* Through a dangling link the target is made. */
    MUST(open("dangling", O_WRONLY | O_CREAT, 0600));
    IS(S_ISREG(state("nowhere").st_mode));
}

CHECK(errors_of_open) {
    REFUSED(open("missing", O_RDONLY), ENOENT);
    REFUSED(open("missing/file", O_WRONLY | O_CREAT, 0600), ENOENT);
    REFUSED(open("file/below", O_RDONLY), ENOTDIR);
    REFUSED(open("file/", O_RDONLY), ENOTDIR);
    REFUSED(open("file", O_RDONLY | O_DIRECTORY), ENOTDIR);
    REFUSED(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
    REFUSED(open("link", O_RDONLY | O_DIRECTORY), ENOTDIR);
    REFUSED(open("dir", O_WRONLY), EISDIR);
    REFUSED(open("dir", O_RDWR), EISDIR);
    REFUSED(open("dir", O_RDONLY | O_CREAT, 0600), EISDIR);
    REFUSED(open("new/", O_WRONLY | O_CREAT, 0600), EISDIR);
    MUST(symlink("loop-b", "loop-a"));
    MUST(symlink("loop-a", "loop-b"));
    REFUSED(open("loop-a", O_RDONLY), ELOOP);
    REFUSED(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    REFUSED(open("", O_RDONLY), ENOENT);
    static char name[257], path[5000];
    memset(name, 'n', 256);
    REFUSED(open(name, O_RDONLY), ENAMETOOLONG);
    REFUSED(open(name, O_WRONLY | O_CREAT, 0600), ENAMETOOLONG);
    REFUSED(mkdir(name, 0700), ENAMETOOLONG);
    REFUSED(symlink("x", name), ENAMETOOLONG);
    REFUSED(rename("file", name), ENAMETOOLONG);
    REFUSED(unlink(name), ENAMETOOLONG);
    for (int at = 0; at < 4998; at += 2)
        memcpy(path + at, "./", 2);
    REFUSED(open(path, O_RDONLY), ENAMETOOLONG);
}

CHECK(modes_are_obeyed) {
    MUST(chmod("file", 0));
    REFUSED(open("file", O_RDONLY), EACCES);
    REFUSED(open("file", O_WRONLY), EACCES);
    REFUSED(truncate("file", 0), EACCES);
    MUST(chmod("data", 0444));
    REFUSED(open("data", O_RDWR), EACCES);
    MUST(open("data", O_RDONLY));
    MUST(chmod("dir", 0500));
    REFUSED(open("dir/new", O_WRONLY | O_CREAT, 0600), EACCES);
    REFUSED(unlink("dir/a"), EACCES);
    REFUSED(rename("dir/a", "a"), EACCES);
    REFUSED(rename("changed", "dir/a"), EACCES);
    IS(!strcmp(text("dir/a"), "a\n"));
    MUST(chmod("dir", 0600));
    REFUSED(open("dir/a", O_RDONLY), EACCES);
    IS(access("dir", X_OK) == -1 && errno == EACCES);
    MUST(chmod("dir", 0700));
    /* Who has it open for writing keeps that. */
    int fd = MUST(open("made", O_RDWR | O_CREAT, 0));
    IS(write(fd, "x", 1) == 1);
    REFUSED(open("made", O_RDWR), EACCES);
}

CHECK(path_descriptors) {
    int fd = MUST(open("file", O_PATH));
    char byte, name[40];
    REFUSED(read(fd, &byte, 1), EBADF);
    REFUSED(fchmod(fd, 0600), EBADF);
    IS(state_of(fd).st_ino == state("file").st_ino);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int again = MUST(open(name, O_RDWR));
    IS(pwrite(again, "L", 1, 0) == 1);
    IS(!strcmp(text("file"), "Lower one\n"));
    IS(state_of(fd).st_ino == state("file").st_ino && state_of(fd).st_size == 10);
    int link = MUST(open("link", O_PATH | O_NOFOLLOW));
    IS(S_ISLNK(state_of(link).st_mode));
    char target[10];
    IS(readlinkat(link, "", target, sizeof target) == 4);
    int dir = MUST(open("dir", O_PATH | O_DIRECTORY));
    MUST(openat(dir, "a", O_RDWR));
}

CHECK(openat2_is_held_below) {
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
    int dir = MUST(open("dir", O_PATH | O_DIRECTORY));
    MUST(syscall(SYS_openat2, dir, "sub/x", &how, sizeof how));
    REFUSED(syscall(SYS_openat2, dir, "../file", &how, sizeof how), EXDEV);
    how.resolve = RESOLVE_NO_SYMLINKS;
    REFUSED(syscall(SYS_openat2, AT_FDCWD, "link", &how, sizeof how), ELOOP);
    how.resolve = RESOLVE_IN_ROOT;
    MUST(syscall(SYS_openat2, dir, "/a", &how, sizeof how));
    /* Another mount it must not be: the root is one. */
    how.resolve = RESOLVE_NO_XDEV;
    MUST(syscall(SYS_openat2, AT_FDCWD, "dir/sub/x", &how, sizeof how));
}

CHECK(files_without_a_name) {
    char name[40];
    int fd = MUST(open(".", O_TMPFILE | O_RDWR, 0640));
    IS(write(fd, "quiet", 5) == 5 && state_of(fd).st_nlink == 0);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    REFUSED(linkat(AT_FDCWD, name, AT_FDCWD, "file", AT_SYMLINK_FOLLOW), EEXIST);
    MUST(linkat(AT_FDCWD, name, AT_FDCWD, "dir/gone", AT_SYMLINK_FOLLOW));
    IS(!strcmp(text("dir/gone"), "quiet") && state_of(fd).st_nlink == 1);
    IS(state("dir/gone").st_ino == state_of(fd).st_ino && (state("dir/gone").st_mode & 07777) == 0640);
    IS(pwrite(fd, "Q", 1, 0) == 1 && !strcmp(text("dir/gone"), "Quiet"));
    fd = MUST(open("dir/sub", O_TMPFILE | O_RDWR | O_EXCL, 0600));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    REFUSED(linkat(AT_FDCWD, name, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW), ENOENT);
    REFUSED(open("file", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
}

CHECK(a_descriptor_is_linked) {
    int fd = MUST(open(".", O_TMPFILE | O_RDWR, 0600));
    IS(write(fd, "x", 1) == 1);
    /* Without a capability since Linux 6.10, for who opened it. */
    if (linkat(fd, "", AT_FDCWD, "linked", AT_EMPTY_PATH) == 0)
        IS(!strcmp(text("linked"), "x"));
    else
        IS(errno == ENOENT);
}

CHECK(unlinked_upper_file_lives_on) {
    int fd = MUST(open("new", O_RDWR | O_CREAT | O_EXCL, 0600));
    IS(write(fd, "abc", 3) == 3);
    MUST(unlink("new"));
    IS(state_of(fd).st_nlink == 0 && !is_there("new"));
    IS(pwrite(fd, "B", 1, 1) == 1 && !strcmp(text_of(fd), "aBc"));
    MUST(ftruncate(fd, 2));
    MUST(fchmod(fd, 0640));
    MUST(fsync(fd));
    put("new", "another");
    IS(!strcmp(text_of(fd), "aB") && state_of(fd).st_ino != state("new").st_ino);
}

CHECK(unlinked_lower_file_lives_on) {
    int reader = MUST(open("file", O_RDONLY)), writer = MUST(open("changed", O_RDWR));
    ino_t number = state_of(reader).st_ino;
    MUST(unlink("file"));
    MUST(unlink("changed"));
    IS(!strcmp(text_of(reader), "lower one\n") && !strcmp(text_of(writer), "second\n"));
    IS(pwrite(writer, "S", 1, 0) == 1 && !strcmp(text_of(writer), "Second\n"));
    IS(state_of(reader).st_ino == number && state_of(reader).st_size == 10);
    put("file", "new");
    IS(!strcmp(text_of(reader), "lower one\n"));
}

CHECK(unlinked_files_have_no_links) {
    int reader = MUST(open("file", O_RDONLY)), writer = MUST(open("changed", O_RDWR));
    MUST(unlink("file"));
    MUST(unlink("changed"));
    IS(state_of(writer).st_nlink == 0);
    IS(state_of(reader).st_nlink == 0);
}

CHECK(unlinked_lower_file_is_changed) {
    int fd = MUST(open("file", O_RDONLY));
    MUST(unlink("file"));
    MUST(fchmod(fd, 0600));
    IS((state_of(fd).st_mode & 07777) == 0600);
    IS(!strcmp(text_of(fd), "lower one\n"));
}

CHECK(replaced_file_lives_on) {
    int fd = MUST(open("file", O_RDONLY));
    put("other", "other");
    MUST(rename("other", "file"));
    IS(!strcmp(text_of(fd), "lower one\n") && !strcmp(text("file"), "other"));
}

CHECK(reader_sees_what_is_written_later) {
    int reader = MUST(open("file", O_RDONLY));
    IS(!strcmp(text_of(reader), "lower one\n"));
    int writer = MUST(open("file", O_WRONLY));
    IS(pwrite(writer, "LOWER two, longer", 17, 0) == 17);
    IS(!strcmp(text_of(reader), "LOWER two, longer"));
    struct stat one = state_of(reader), two = state_of(writer);
    IS(one.st_size == 17 && two.st_size == 17 && one.st_ino == two.st_ino && one.st_dev == two.st_dev);
    MUST(ftruncate(writer, 3));
    IS(!strcmp(text_of(reader), "LOW"));
}

CHECK(writer_follows_a_rename) {
    int fd = MUST(open("file", O_RDWR));
    MUST(rename("file", "dir/moved"));
    IS(pwrite(fd, "L", 1, 0) == 1 && !strcmp(text("dir/moved"), "Lower one\n"));
    int reader = MUST(open("changed", O_RDONLY));
    MUST(rename("changed", "dir/changed"));
    IS(!strcmp(text_of(reader), "second\n"));
    put("dir/changed", "later");
    IS(!strcmp(text_of(reader), "later"));
}

static off_t blocks(const char *path) { return state(path).st_blocks * 512; }

/* `sparse` is 16 MiB with 4096 bytes at the beginning and in the middle. */
#define SPARSE (16 << 20)
#define MIDDLE (SPARSE / 2)

CHECK(holes_of_a_lower_file_are_seen) {
    int fd = MUST(open("sparse", O_RDONLY));
    IS(state_of(fd).st_size == SPARSE && blocks("sparse") < 1 << 18);
    IS(lseek(fd, 0, SEEK_DATA) == 0);
    IS(lseek(fd, 4096, SEEK_DATA) == MIDDLE);
    IS(lseek(fd, 0, SEEK_HOLE) == 4096);
    IS(lseek(fd, MIDDLE, SEEK_HOLE) == MIDDLE + 4096);
    REFUSED(lseek(fd, MIDDLE + 4096, SEEK_DATA), ENXIO);
    REFUSED(lseek(fd, SPARSE, SEEK_HOLE), ENXIO);
}

/* The kernel's overlay copies pieces of 1 MiB that have any data, so that small holes are filled. */
CHECK(holes_survive_copy_up) {
    MUST(chmod("sparse", 0600));
    int fd = MUST(open("sparse", O_RDWR));
    IS(pwrite(fd, "x", 1, 0) == 1);
    IS(state_of(fd).st_size == SPARSE);
    IS(blocks("sparse") < 4 << 20);
    char bytes[3];
    IS(pread(fd, bytes, 3, MIDDLE + 4094) == 3 && bytes[1] == 'm' && bytes[2] == 0);
    IS(lseek(fd, 2 << 20, SEEK_DATA) == MIDDLE);
}

CHECK(space_is_reserved_and_released) {
    int fd = MUST(open("data", O_RDWR));
    MUST(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 16384));
    char bytes[2];
    IS(pread(fd, bytes, 2, 8191) == 2 && bytes[0] == (char)(8191 % 251) && bytes[1] == 0);
    IS(lseek(fd, 0, SEEK_HOLE) == 8192 && lseek(fd, 8192, SEEK_DATA) == 24576);
    MUST(fallocate(fd, FALLOC_FL_KEEP_SIZE, 65536, 65536));
    IS(state_of(fd).st_size == 65536);
    MUST(fallocate(fd, 0, 65536, 65536));
    IS(state_of(fd).st_size == 131072);
    IS(pread(fd, bytes, 1, 131071) == 1 && bytes[0] == 0);
    REFUSED(fallocate(MUST(open("file", O_RDONLY)), 0, 0, 10), EBADF);
}

/* 5 GiB with 4096 bytes at the beginning, in the middle, and at the end. */
CHECK(files_beyond_four_gibibytes) {
    int fd = MUST(open("../../big/five-gibibytes", O_RDWR));
    off_t size = 5LL << 30;
    IS(state_of(fd).st_size == size);
    char bytes[2];
    IS(pread(fd, bytes, 2, size - 1) == 1 && bytes[0] == 'e');
    IS(lseek(fd, 2 << 20, SEEK_DATA) == 5LL << 29);
    IS(pwrite(fd, "EE", 2, size - 1) == 2);
    IS(state_of(fd).st_size == size + 1 && state_of(fd).st_blocks < 1 << 14);
    IS(pread(fd, bytes, 1, 5LL << 29) == 1 && bytes[0] == 'm');
    MUST(ftruncate(fd, 6LL << 30));
    IS(lseek(fd, 0, SEEK_END) == 6LL << 30);
}

CHECK(copy_file_range_between_upper_files) {
    put("from", "0123456789");
    int in = MUST(open("from", O_RDONLY)), out = MUST(open("to", O_RDWR | O_CREAT, 0600));
    off_t at = 2;
    IS(MUST(copy_file_range(in, &at, out, 0, 5, 0)) == 5);
    IS(!strcmp(text("to"), "23456") && at == 7);
}

CHECK(copy_file_range_from_a_lower_file) {
    int in = MUST(open("file", O_RDONLY)), out = MUST(open("to", O_RDWR | O_CREAT, 0600));
    IS(MUST(copy_file_range(in, 0, out, 0, 100, 0)) == 10);
    IS(!strcmp(text("to"), "lower one\n"));
}

CHECK(sendfile_and_splice) {
    int in = MUST(open("data", O_RDONLY)), out = MUST(open("changed", O_RDWR | O_TRUNC));
    for (ssize_t left = 65536; left > 0;)
        left -= MUST(sendfile(out, in, 0, left));
    IS(state_of(out).st_size == 65536);
    int pipe_of[2];
    MUST(pipe(pipe_of));
    loff_t from = 100, to = 0;
    IS(MUST(splice(in, &from, pipe_of[1], 0, 50, 0)) == 50);
    IS(MUST(splice(pipe_of[0], 0, out, &to, 50, 0)) == 50);
    unsigned char bytes[2];
    IS(pread(out, bytes, 2, 49) == 2 && bytes[0] == 149 && bytes[1] == 50);
}

CHECK(vectors) {
    int fd = MUST(open("file", O_RDWR));
    struct iovec write_these[2] = {{"ab", 2}, {"cd", 2}};
    IS(pwritev(fd, write_these, 2, 6) == 4);
    char one[7] = "", two[5] = "";
    struct iovec read_these[2] = {{one, 6}, {two, 4}};
    IS(readv(fd, read_these, 2) == 10 && !strcmp(one, "lower ") && !strcmp(two, "abcd"));
}

CHECK(everything_is_synced) {
    int fd = MUST(open("file", O_RDWR)), dir = MUST(open(".", O_RDONLY | O_DIRECTORY));
    IS(write(fd, "x", 1) == 1);
    MUST(fsync(fd));
    MUST(fdatasync(fd));
    MUST(fsync(dir));
    MUST(syncfs(fd));
    MUST(fsync(MUST(open("changed", O_RDONLY))));
    MUST(fsync(MUST(open("dir", O_RDONLY))));
    int synced = MUST(open("file", O_WRONLY | O_SYNC));
    IS(write(synced, "y", 1) == 1);
}

CHECK(space_is_told) {
    struct statfs of_lower, of_upper, of_dir;
    put("new", "x");
    MUST(statfs("file", &of_lower));
    MUST(statfs("new", &of_upper));
    MUST(fstatfs(MUST(open("dir", O_RDONLY)), &of_dir));
    IS(of_lower.f_type == of_upper.f_type && of_upper.f_type == of_dir.f_type);
    IS(of_lower.f_blocks == of_upper.f_blocks && of_upper.f_bavail > 0 && of_upper.f_blocks > 0);
    IS(of_upper.f_namelen == 255);
}

CHECK(the_size_limit_holds) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {4096, 4096};
    MUST(setrlimit(RLIMIT_FSIZE, &limit));
    int fd = MUST(open("file", O_RDWR));
    static char page[8192];
    IS(write(fd, page, sizeof page) == 4096);
    REFUSED(write(fd, page, 1), EFBIG);
    REFUSED(ftruncate(fd, 5000), EFBIG);
}

CHECK(many_files_are_open_at_once) {
    char name[20];
    int fds[400];
    for (int at = 0; at < 400; at++) {
        snprintf(name, sizeof name, "many-%d", at);
        fds[at] = MUST(open(at % 2 ? name : "file", O_RDWR | O_CREAT, 0600));
    }
    for (int at = 1; at < 400; at += 2) {
        snprintf(name, sizeof name, "many-%d", at);
        MUST(unlink(name));
        IS(write(fds[at], name, 5) == 5);
    }
    for (int at = 1; at < 400; at += 2)
        IS(!strcmp(text_of(fds[at]), "many-"));
}

/* More of the layers' than a server with few descriptors can keep open, and then new ones. */
CHECK(more_files_than_may_be_open) {
    const char *const names[] = {"file", "data", "hard-a", "dir/a", "dir/b", "dir/sub/x", "changed"};
    char name[512];
    int count = 0;
    DIR *dir = opendir("..");
    for (struct dirent *entry; (entry = readdir(dir));)
        for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
            snprintf(name, sizeof name, "../%s/%s", entry->d_name, names[at]);
            int fd = open(name, O_RDONLY);
            /* Other checks may have changed theirs. */
            if (fd < 0)
                continue;
            char byte;
            count += read(fd, &byte, 1) == 1;
            MUST(close(fd));
        }
    closedir(dir);
    IS(count > 500);
    MUST(mkdir("made", 0755));
    for (int number = 0; number < 600; number++) {
        snprintf(name, sizeof name, "made/%d", number);
        put(name, "x");
    }
    for (int number = 0; number < 600; number++) {
        snprintf(name, sizeof name, "made/%d", number);
        MUST(unlink(name));
    }
    MUST(rmdir("made"));
}
