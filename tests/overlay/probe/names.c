/* Renaming and removing. */
#include "probe.h"

#include <sys/xattr.h>

static int exchange(const char *one, const char *two) {
    return renameat2(AT_FDCWD, one, AT_FDCWD, two, RENAME_EXCHANGE);
}

static int no_replace(const char *from, const char *to) {
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

CHECK(rename_lower_file) {
    struct stat before = state("file");
    MUST(rename("file", "renamed"));
    IS(!is_there("file") && !listed(".", "file") && listed(".", "renamed") == 1);
    struct stat after = state("renamed");
    IS(!strcmp(text("renamed"), "lower one\n") && after.st_ino == before.st_ino);
    IS(after.st_mtim.tv_sec == before.st_mtim.tv_sec && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
    char value[10];
    IS(getxattr("renamed", "user.first", value, sizeof value) == 3);
    put("file", "again");
    IS(!strcmp(text("renamed"), "lower one\n"));
    MUST(rename("renamed", "dir/sub/deep"));
    MUST(rename("dir/sub/deep", "gone"));
    IS(!strcmp(text("gone"), "lower one\n") && names_in("dir/sub") == 1);
}

CHECK(rename_onto_files) {
    put("new", "new");
    MUST(rename("new", "file"));
    IS(!strcmp(text("file"), "new") && !is_there("new"));
    MUST(rename("changed", "file"));
    IS(!strcmp(text("file"), "second\n"));
    MUST(rename("data", "dir/a"));
    IS(state("dir/a").st_size == 65536 && names_in("dir") == 3);
    MUST(unlink("dir/a"));
    IS(!is_there("dir/a") && names_in("dir") == 2);
    MUST(rename("link", "dir/b"));
    IS(S_ISLNK(state("dir/b").st_mode));
}

CHECK(rename_of_one_file_onto_itself_does_nothing) {
    MUST(rename("file", "file"));
    MUST(rename("hard-a", "hard-b"));
    IS(is_there("hard-a") && is_there("hard-b"));
    put("new", "x");
    MUST(link("new", "linked"));
    MUST(rename("new", "linked"));
    IS(is_there("new") && is_there("linked"));
}

CHECK(rename_upper_directory) {
    MUST(mkdir("new", 0700));
    put("new/in", "x");
    ino_t number = state("new").st_ino;
    MUST(rename("new", "gonedir"));
    IS(!strcmp(text("gonedir/in"), "x") && names_in("gonedir") == 1);
    IS(state("gonedir").st_ino == number && !is_there("new"));
    MUST(rename("gonedir", "dir/moved"));
    IS(!strcmp(text("dir/moved/in"), "x"));
    int fd = MUST(open("dir/moved", O_RDONLY | O_DIRECTORY));
    MUST(rename("dir/moved", "back"));
    MUST(openat(fd, "other", O_WRONLY | O_CREAT, 0600));
    IS(names_in("back") == 2);
}

CHECK(rename_lower_directory) {
    MUST(rename("dir", "renamed"));
    IS(!is_there("dir") && !strcmp(text("renamed/a"), "a\n") && !strcmp(text("renamed/sub/x"), "x\n"));
    IS(names_in("renamed") == 3);
    put("renamed/a", "changed");
    MUST(unlink("renamed/b"));
    MUST(mkdir("dir", 0700));
    IS(names_in("dir") == 0 && names_in("renamed") == 2);
    MUST(rename("renamed/sub", "dir/sub"));
    IS(!strcmp(text("dir/sub/x"), "x\n"));
}

CHECK(rename_merged_directory) {
    put("merged/four", "upper\n");
    MUST(unlink("merged/one"));
    MUST(rename("merged", "dir/merged"));
    IS(names_in("dir/merged") == 3 && !strcmp(text("dir/merged/two"), "second\n"));
    IS(!is_there("dir/merged/one") && !strcmp(text("dir/merged/four"), "upper\n"));
}

CHECK(rename_onto_directories) {
    MUST(mkdir("new", 0700));
    put("new/in", "x");
    REFUSED(rename("new", "dir"), ENOTEMPTY);
    REFUSED(rename("new", "merged"), ENOTEMPTY);
    MUST(rename("new", "empty"));
    IS(names_in("empty") == 1 && !strcmp(text("empty/in"), "x"));
    MUST(unlink("dir/a"));
    MUST(unlink("dir/b"));
    remove_tree("dir/sub");
    IS(names_in("dir") == 0);
    MUST(rename("empty", "dir"));
    IS(names_in("dir") == 1 && !strcmp(text("dir/in"), "x") && !is_there("dir/a"));
}

CHECK(errors_of_rename) {
    REFUSED(rename("missing", "x"), ENOENT);
    REFUSED(rename("gone", "x"), ENOENT);
    REFUSED(rename("file", "missing/x"), ENOENT);
    REFUSED(rename("file", "data/x"), ENOTDIR);
    REFUSED(rename("file", "x/"), ENOTDIR);
    REFUSED(rename("file", "dir"), EISDIR);
    MUST(mkdir("new", 0700));
    REFUSED(rename("new", "file"), ENOTDIR);
    REFUSED(rename("new", "new/in"), EINVAL);
    REFUSED(rename("new", "."), EBUSY);
    REFUSED(rename("file", "/dev/shm/x"), EXDEV);
    IS(!strcmp(text("file"), "lower one\n"));
}

CHECK(rename_without_replacing) {
    REFUSED(no_replace("file", "data"), EEXIST);
    REFUSED(no_replace("file", "dir"), EEXIST);
    REFUSED(no_replace("file", "dangling"), EEXIST);
    MUST(no_replace("file", "gone"));
    IS(!strcmp(text("gone"), "lower one\n"));
    put("new", "x");
    REFUSED(no_replace("new", "gone"), EEXIST);
    MUST(no_replace("new", "file"));
    IS(!strcmp(text("file"), "x"));
}

CHECK(exchange_files) {
    ino_t one = state("file").st_ino, two = state("changed").st_ino;
    MUST(exchange("file", "changed"));
    IS(!strcmp(text("changed"), "lower one\n") && !strcmp(text("file"), "second\n"));
    IS(state("changed").st_ino == one && state("file").st_ino == two);
    put("new", "new");
    MUST(exchange("new", "dir/a"));
    IS(!strcmp(text("dir/a"), "new") && !strcmp(text("new"), "a\n"));
    REFUSED(exchange("file", "missing"), ENOENT);
    REFUSED(exchange("file", "gone"), ENOENT);
    MUST(unlink("file"));
    IS(!is_there("file") && !listed(".", "file"));
}

CHECK(exchange_with_a_directory) {
    MUST(mkdir("new", 0700));
    put("new/in", "x");
    MUST(exchange("file", "new"));
    IS(!strcmp(text("file/in"), "x") && !strcmp(text("new"), "lower one\n"));
    MUST(exchange("file", "link"));
    IS(S_ISDIR(state("link").st_mode) && S_ISLNK(state("file").st_mode));
    MUST(mkdir("other", 0700));
    MUST(exchange("link", "other"));
    IS(names_in("link") == 0 && names_in("other") == 1);
}

CHECK(exchange_lower_directories) {
    MUST(exchange("dir", "merged"));
    IS(!strcmp(text("merged/a"), "a\n") && !strcmp(text("dir/one"), "first\n"));
}

CHECK(unlink_and_make_again) {
    for (int round = 0; round < 3; round++) {
        MUST(unlink("file"));
        IS(!is_there("file") && !listed(".", "file"));
        REFUSED(unlink("file"), ENOENT);
        put("file", "again");
        IS(listed(".", "file") == 1);
    }
    MUST(unlink("link"));
    MUST(unlink("dangling"));
    MUST(unlink("fifo"));
    IS(!is_there("link") && !is_there("dangling") && !is_there("fifo"));
    IS(!strcmp(text("file"), "again"));
}

CHECK(errors_of_unlink) {
    REFUSED(unlink("missing"), ENOENT);
    REFUSED(unlink("gone"), ENOENT);
    REFUSED(unlink("dir"), EISDIR);
    REFUSED(unlink("file/"), ENOTDIR);
    REFUSED(unlink("file/x"), ENOTDIR);
    REFUSED(rmdir("file"), ENOTDIR);
    REFUSED(rmdir("link"), ENOTDIR);
    REFUSED(rmdir("missing"), ENOENT);
    REFUSED(rmdir("gonedir"), ENOENT);
    REFUSED(rmdir("dir"), ENOTEMPTY);
    REFUSED(rmdir("merged"), ENOTEMPTY);
    REFUSED(rmdir("dir/sub/."), EINVAL);
    REFUSED(mkdir("dir", 0700), EEXIST);
    REFUSED(mkdir("file", 0700), EEXIST);
    REFUSED(mkdir("dangling", 0700), EEXIST);
    REFUSED(mkdir("missing/x", 0700), ENOENT);
    REFUSED(mkdir("file/x", 0700), ENOTDIR);
}

CHECK(names_of_every_kind) {
    static char longest[256];
    memset(longest, 'n', 255);
    const char *names[] = {"\xff\xfe\x80 not UTF-8", "a\nb", "\x01", "-n", longest, "\\", "*", "..."};
    for (unsigned at = 0; at < sizeof names / sizeof *names; at++) {
        put(names[at], "x");
        IS(listed(".", names[at]) == 1 && !strcmp(text(names[at]), "x"));
        MUST(rename(names[at], "plain"));
        MUST(rename("plain", names[at]));
        MUST(link(names[at], "linked"));
        MUST(unlink("linked"));
        MUST(unlink(names[at]));
        IS(!is_there(names[at]));
        MUST(mkdir(names[at], 0700));
        MUST(rmdir(names[at]));
    }
}

CHECK(lower_names_of_every_kind) {
    MUST(chdir("../../big/names"));
    static char longest[256];
    memset(longest, 'l', 255);
    IS(names_in(".") == 4);
    IS(!strcmp(text("\xff\xfe\x80 bytes"), "bytes\n") && listed(".", "\xff\xfe\x80 bytes") == 1);
    IS(!strcmp(text(longest), "longest\n") && !strcmp(text("a\nb"), "newline\n"));
    put("\xff\xfe\x80 bytes", "changed");
    MUST(rename(longest, "\x80"));
    MUST(unlink("a\nb"));
    IS(!is_there("a\nb") && !is_there(longest) && !strcmp(text("\x80"), "longest\n"));
    put(longest, "new");
    IS(names_in(".") == 4);
}
