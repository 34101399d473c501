/* Reading, removing and making directories. */
#include "probe.h"

#include <dirent.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/syscall.h>

CHECK(every_entry_once_with_its_type) {
    DIR *dir = opendir(".");
    int count = 0, dots = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat found = state(entry->d_name);
        dots += entry->d_name[0] == '.';
        count++;
        IS(entry->d_type == IFTODT(found.st_mode));
    }
    IS(dots == 2);
    /* What layers.rs puts there. */
    IS(count == 2 + 21);
    put("new", "x");
    MUST(unlink("file"));
    MUST(unlink("data"));
    put("data", "x");
    rewinddir(dir);
    int again = 0;
    while (readdir(dir))
        again++;
    IS(again == count);
}

/* Whether the number that reading the directory gives is the one that stat gives. */
static void numbers_match(const char *path) {
    DIR *dir = opendir(path);
    IS(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat found;
        MUST(fstatat(dirfd(dir), entry->d_name, &found, AT_SYMLINK_NOFOLLOW));
        if (strcmp(entry->d_name, "..") && found.st_ino != entry->d_ino)
            fail(__FILE__, __LINE__, entry->d_name, 0);
    }
    closedir(dir);
}

CHECK(inode_numbers_in_directories) {
    numbers_match(".");
    numbers_match("dir");
    numbers_match("merged");
    put("new", "x");
    put("file", "changed");
    put("merged/four", "x");
    MUST(chmod("dir", 0700));
    numbers_match(".");
    numbers_match("merged");
    numbers_match("dir");
}

CHECK(positions_survive_changes) {
    char name[20];
    MUST(mkdir("many", 0700));
    for (int at = 0; at < 2000; at++) {
        snprintf(name, sizeof name, "many/%04d", at);
        MUST(close(MUST(open(name, O_WRONLY | O_CREAT, 0600))));
    }
    DIR *dir = opendir("many");
    static char seen[2000];
    int count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        int number = atoi(entry->d_name);
        IS(!seen[number]);
        seen[number] = 1;
        count++;
        /* A new name may come or not; an old one comes once. */
        if (count % 100 == 0) {
            snprintf(name, sizeof name, "many/.new%d", count);
            put(name, "x");
        }
        if (count % 3 == 0) {
            snprintf(name, sizeof name, "many/%04d", number);
            MUST(unlink(name));
        }
    }
    IS(count == 2000);
}

CHECK(telldir_and_seekdir) {
    DIR *dir = opendir("../../big/many");
    static long places[300];
    static char names[300][256];
    int count = 0;
    for (struct dirent *entry; count < 300 && (entry = readdir(dir)); count++) {
        strcpy(names[count], entry->d_name);
        places[count] = telldir(dir);
    }
    IS(count == 300);
    for (int at = 297; at > 0; at -= 37) {
        seekdir(dir, places[at]);
        struct dirent *next = readdir(dir);
        IS(next && !strcmp(next->d_name, names[at + 1]));
    }
    rewinddir(dir);
    IS(!strcmp(readdir(dir)->d_name, names[0]));
}

/* 100,000 files in two layers, of which every hundredth is whited out by the third: 99,000. */
CHECK(a_hundred_thousand_entries) {
    MUST(chdir("../../big/many"));
    static char seen[100000];
    char name[20];
    for (int round = 0; round < 2; round++) {
        memset(seen, 0, sizeof seen);
        DIR *dir = opendir(".");
        int count = 0;
        for (struct dirent *entry; (entry = readdir(dir));) {
            if (entry->d_name[0] == '.')
                continue;
            int number = atoi(entry->d_name + 1);
            IS(!seen[number]);
            seen[number] = 1;
            count++;
        }
        closedir(dir);
        IS(count == (round ? 98000 : 99000));
        if (round)
            break;
        for (int at = 1; at < 100000; at += 100) {
            snprintf(name, sizeof name, "f%05d", at);
            MUST(unlink(name));
        }
    }
    REFUSED(open("f00000", O_RDONLY), ENOENT);
    MUST(open("f00002", O_RDWR));
    MUST(open("f00000", O_RDWR | O_CREAT | O_EXCL, 0600));
}

CHECK(many_entries_are_removed_while_reading) {
    char name[20];
    MUST(mkdir("many", 0700));
    for (int at = 0; at < 3000; at++) {
        snprintf(name, sizeof name, "many/%d", at);
        if (at % 5)
            MUST(close(MUST(open(name, O_WRONLY | O_CREAT, 0600))));
        else
            MUST(mkdir(name, 0700));
    }
    remove_tree("many");
    IS(!is_there("many"));
}

CHECK(lower_tree_is_removed_and_made_again) {
    remove_tree("dir");
    IS(!is_there("dir") && !listed(".", "dir"));
    MUST(mkdir("dir", 0750));
    IS(names_in("dir") == 0 && (state("dir").st_mode & 07777) == 0750);
    REFUSED(open("dir/a", O_RDONLY), ENOENT);
    put("dir/a", "new");
    MUST(mkdir("dir/sub", 0700));
    IS(names_in("dir/sub") == 0 && !strcmp(text("dir/a"), "new"));
    remove_tree("dir");
    put("dir", "a file now");
    IS(S_ISREG(state("dir").st_mode));
    MUST(unlink("dir"));
    MUST(symlink("merged", "dir"));
    IS(!strcmp(text("dir/two"), "second\n"));
    remove_tree("merged");
    remove_tree("opaque");
    remove_tree("again");
    MUST(mkdir("opaque", 0700));
    MUST(mkdir("merged", 0700));
    IS(names_in("opaque") == 0 && names_in("merged") == 0);
}

CHECK(deep_tree_is_removed) {
    MUST(chdir("../../big"));
    char path[4000] = "deep";
    for (int at = 0; at < 200; at++)
        strcat(path, "/d");
    strcat(path, "/bottom");
    IS(!strcmp(text(path), "bottom\n"));
    put(path, "changed\n");
    IS(!strcmp(text(path), "changed\n"));
    remove_tree("deep");
    IS(!is_there("deep"));
}

CHECK(directories_over_whiteouts) {
    MUST(mkdir("gonedir", 0700));
    IS(names_in("gonedir") == 0);
    MUST(rmdir("gonedir"));
    MUST(mkdir("gone", 0700));
    put("gone/in", "x");
    IS(names_in("gone") == 1);
    MUST(unlink("file"));
    MUST(mkdir("file", 0700));
    MUST(rmdir("file"));
    put("file", "x");
    IS(!strcmp(text("file"), "x"));
}

CHECK(an_emptied_directory_is_removed) {
    MUST(rmdir("empty"));
    IS(!is_there("empty"));
    MUST(unlink("dir/sub/x"));
    IS(names_in("dir/sub") == 0);
    MUST(rmdir("dir/sub"));
    MUST(unlink("dir/a"));
    REFUSED(rmdir("dir"), ENOTEMPTY);
    MUST(rename("dir/b", "b"));
    MUST(rmdir("dir"));
    IS(!is_there("dir") && !strcmp(text("b"), "b\n"));
    MUST(unlink("merged/one"));
    MUST(unlink("merged/two"));
    REFUSED(rmdir("merged"), ENOTEMPTY);
    MUST(unlink("merged/three"));
    MUST(rmdir("merged"));
}

CHECK(a_removed_directory_is_empty) {
    int fd = MUST(open("empty", O_RDONLY | O_DIRECTORY));
    MUST(chdir("empty"));
    MUST(rmdir("../empty"));
    REFUSED(open("new", O_WRONLY | O_CREAT, 0600), ENOENT);
    REFUSED(openat(fd, "new", O_WRONLY | O_CREAT, 0600), ENOENT);
    REFUSED(mkdir("new", 0700), ENOENT);
    MUST(mkdir("/proc/self/cwd/../empty", 0700) == 0 || errno == ENOENT ? 0 : -1);
    MUST(fstat(fd, &(struct stat){0}));
}

CHECK(a_directory_descriptor_sees_what_comes) {
    int fd = MUST(open("dir", O_RDONLY | O_DIRECTORY));
    MUST(fchdir(fd));
    put("new", "x");
    MUST(mkdirat(fd, "made", 0700));
    MUST(unlinkat(fd, "a", 0));
    MUST(faccessat(fd, "new", R_OK, 0));
    IS(names_in("../dir") == 4 && names_in(".") == 4);
    IS(state_of(fd).st_ino == state("../dir").st_ino);
}

CHECK(the_watch_sees_what_happens) {
    int watch = MUST(inotify_init1(IN_NONBLOCK));
    int dir = MUST(inotify_add_watch(watch, "dir", IN_ALL_EVENTS));
    int file = MUST(inotify_add_watch(watch, "file", IN_MODIFY | IN_ATTRIB));
    put("dir/new", "x");
    MUST(rename("dir/new", "dir/newer"));
    MUST(unlink("dir/newer"));
    put("dir/a", "changed");
    MUST(chmod("file", 0600));
    int fd = MUST(open("file", O_WRONLY));
    IS(write(fd, "x", 1) == 1);
    static char buffer[1 << 16] __attribute__((aligned(8)));
    ssize_t count = MUST(read(watch, buffer, sizeof buffer));
    unsigned of_dir = 0, of_file = 0;
    for (char *at = buffer; at < buffer + count;) {
        struct inotify_event *event = (struct inotify_event *)at;
        if (event->wd == dir)
            of_dir |= event->mask;
        if (event->wd == file)
            of_file |= event->mask;
        at += sizeof *event + event->len;
    }
    IS((of_dir & IN_CREATE) && (of_dir & IN_DELETE) && (of_dir & IN_MOVED_FROM) && (of_dir & IN_MOVED_TO));
    IS((of_dir & IN_MODIFY) && (of_dir & IN_CLOSE_WRITE));
    IS((of_file & IN_ATTRIB) && (of_file & IN_MODIFY));
}

CHECK(small_buffers_give_all_entries) {
    /* The smallest buffer that getdents64 takes for these names. */
    int fd = MUST(open("merged", O_RDONLY | O_DIRECTORY)), count = 0;
    char buffer[32] __attribute__((aligned(8)));
    for (long length; (length = MUST(syscall(SYS_getdents64, fd, buffer, sizeof buffer))) > 0;)
        for (char *at = buffer; at < buffer + length; at += ((struct dirent64 *)at)->d_reclen)
            count++;
    IS(count == 5);
    REFUSED(syscall(SYS_getdents64, MUST(open("file", O_RDONLY)), buffer, sizeof buffer), ENOTDIR);
}
