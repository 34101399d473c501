/* Hard links, symbolic links, FIFOs, sockets and devices. */
#include "probe.h"

#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

CHECK(lower_hard_links_are_one_file) {
    struct stat one = state("hard-a"), two = state("hard-b");
    IS(one.st_ino == two.st_ino && one.st_dev == two.st_dev);
    IS(one.st_nlink == 2 && two.st_nlink == 2);
}

CHECK(lower_hard_links_share_what_is_written) {
    int fd = MUST(open("hard-a", O_RDWR));
    IS(pwrite(fd, "HARD", 4, 0) == 4);
    IS(!strcmp(text("hard-a"), "HARD\n"));
    IS(!strcmp(text("hard-b"), "HARD\n"));
    IS(state("hard-a").st_ino == state("hard-b").st_ino);
}

CHECK(lower_hard_links_are_counted) {
    MUST(unlink("hard-a"));
    IS(!strcmp(text("hard-b"), "hard\n"));
    IS(state("hard-b").st_nlink == 1);
}

CHECK(other_hard_link_has_what_was_written_without_the_first) {
    int fd = MUST(open("hard-a", O_RDWR));
    MUST(unlink("hard-a"));
    IS(pwrite(fd, "HARD", 4, 0) == 4);
    MUST(close(fd));
    IS(!strcmp(text("hard-b"), "HARD\n"));
    IS(state("hard-b").st_nlink == 1);
    MUST(rename("hard-b", "dir/moved"));
    MUST(link("dir/moved", "dir/third"));
    MUST(unlink("dir/moved"));
    IS(!strcmp(text("dir/third"), "HARD\n") && state("dir/third").st_nlink == 1);
}

CHECK(hard_link_of_a_lower_file) {
    ino_t number = state("file").st_ino;
    MUST(link("file", "dir/second"));
    IS(state("file").st_nlink == 2 && state("dir/second").st_nlink == 2);
    IS(state("dir/second").st_ino == number && state("file").st_ino == number);
    put("dir/second", "both\n");
    IS(!strcmp(text("file"), "both\n"));
    MUST(chmod("file", 0600));
    IS((state("dir/second").st_mode & 07777) == 0600);
    MUST(unlink("file"));
    IS(state("dir/second").st_nlink == 1 && !strcmp(text("dir/second"), "both\n"));
}

CHECK(hard_links_of_upper_files) {
    put("new", "x");
    MUST(link("new", "gone"));
    MUST(link("gone", "dir/third"));
    IS(state("new").st_nlink == 3 && state("dir/third").st_ino == state("new").st_ino);
    MUST(unlink("new"));
    MUST(unlink("gone"));
    IS(state("dir/third").st_nlink == 1 && !is_there("gone"));
    int fd = MUST(open("dir/third", O_RDONLY));
    MUST(unlink("dir/third"));
    IS(state_of(fd).st_nlink == 0);
}

CHECK(errors_of_link) {
    REFUSED(link("file", "data"), EEXIST);
    REFUSED(link("file", "file"), EEXIST);
    REFUSED(link("missing", "x"), ENOENT);
    REFUSED(link("gone", "x"), ENOENT);
    REFUSED(link("dir", "x"), EPERM);
    REFUSED(link("file", "file/x"), ENOTDIR);
    REFUSED(link("file", "missing/x"), ENOENT);
    REFUSED(link("file", "/dev/shm/x"), EXDEV);
}

CHECK(links_to_special_files) {
    MUST(link("link", "second-link"));
    char target[20] = "";
    IS(readlink("second-link", target, sizeof target) == 4 && !strcmp(target, "file"));
    IS(S_ISLNK(state("second-link").st_mode) && state("link").st_nlink == 2);
    MUST(linkat(AT_FDCWD, "link", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    IS(state("followed").st_ino == state("file").st_ino);
    MUST(link("fifo", "second-fifo"));
    IS(S_ISFIFO(state("second-fifo").st_mode) && state("fifo").st_nlink == 2);
}

CHECK(symbolic_links) {
    char target[5000] = "";
    IS(readlink("link", target, sizeof target) == 4 && !strcmp(target, "file"));
    IS(state("link").st_size == 4 && !strcmp(text("link"), "lower one\n"));
    IS(readlink("link", target, 2) == 2);
    REFUSED(readlink("file", target, sizeof target), EINVAL);
    REFUSED(readlink("missing", target, sizeof target), ENOENT);
    REFUSED(symlink("x", "file"), EEXIST);
    REFUSED(symlink("x", "dangling"), EEXIST);
    REFUSED(symlink("", "empty-target"), ENOENT);
    MUST(symlink("dir", "gone"));
    IS(!strcmp(text("gone/a"), "a\n"));
    put("gone/made", "x");
    IS(is_there("dir/made"));
    MUST(unlink("link"));
    MUST(symlink("data", "link"));
    IS(state("link").st_size == 4 && readlink("link", target, sizeof target) == 4);
    IS(!strncmp(target, "data", 4));
    put("link", "through");
    IS(!strcmp(text("data"), "through"));
    memset(target, 't', 4095);
    target[4095] = 0;
    MUST(symlink(target, "long-link"));
    IS(readlink("long-link", target, sizeof target) == 4095);
    REFUSED(open("long-link", O_RDONLY), ENAMETOOLONG);
}

static void through_fifo(const char *path) {
    IS(S_ISFIFO(state(path).st_mode));
    int both = MUST(open(path, O_RDWR | O_NONBLOCK)), reader = MUST(open(path, O_RDONLY));
    char got[4] = "";
    IS(write(both, "fed", 3) == 3 && read(reader, got, 3) == 3 && !strcmp(got, "fed"));
}

CHECK(fifos) {
    through_fifo("fifo");
    MUST(mkfifo("new", 0600));
    through_fifo("new");
    MUST(rename("fifo", "dir/fifo"));
    through_fifo("dir/fifo");
    MUST(chmod("dir/fifo", 0600));
    through_fifo("dir/fifo");
    REFUSED(mkfifo("file", 0600), EEXIST);
    MUST(mkfifo("gone", 0600));
}

static struct sockaddr_un address(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    return address;
}

CHECK(sockets) {
    struct sockaddr_un at = address("gone"), taken = address("file");
    int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    REFUSED(bind(listener, (struct sockaddr *)&taken, sizeof taken), EADDRINUSE);
    MUST(bind(listener, (struct sockaddr *)&at, sizeof at));
    MUST(listen(listener, 1));
    IS(S_ISSOCK(state("gone").st_mode));
    int client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    REFUSED(connect(client, (struct sockaddr *)&taken, sizeof taken), ECONNREFUSED);
    MUST(connect(client, (struct sockaddr *)&at, sizeof at));
    int server = MUST(accept(listener, 0, 0));
    char byte;
    IS(write(client, "x", 1) == 1 && read(server, &byte, 1) == 1);
    MUST(rename("gone", "dir/socket"));
    at = address("dir/socket");
    MUST(connect(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&at, sizeof at));
    REFUSED(open("dir/socket", O_RDWR), ENXIO);
    MUST(unlink("dir/socket"));
}

/* Landlock says EACCES where the kernel itself says EPERM. */
static int is_refused(int result) { return result == -1 && (errno == EPERM || errno == EACCES); }

CHECK(devices_are_refused) {
    IS(is_refused(mknod("null", S_IFCHR | 0666, makedev(1, 3))));
    IS(is_refused(mknod("disk", S_IFBLK | 0666, makedev(8, 0))));
    IS(!is_there("null") && !is_there("disk"));
    MUST(mknod("plain", S_IFREG | 0600, 0));
    IS(S_ISREG(state("plain").st_mode));
}

/* A 0:0 character device is how overlays say that a name is gone; any user may make one. */
CHECK(whiteouts_are_refused) {
    IS(is_refused(mknod("file-0-0", S_IFCHR, 0)));
    IS(!is_there("file-0-0"));
}
