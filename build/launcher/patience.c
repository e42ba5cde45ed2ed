/* How long a call waits for a server that does not serve it, and which server no call waits for.
 *
 * The server and its workers are in the control group of the first caller, or of their unit. While that is frozen
 * none of them runs. Their time on a processor shows it, without a message to them.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define GIVEN_UP_S 10

/* What is known of a server that has let a call wait in vain: its time on a processor, 0 where it is not known. */
struct note {
    uint64_t pid, work;
};

static const char *path_of_note(void)
{
    static char path[120];
    snprintf(path, sizeof path, "%s.late", socket_path);
    return path;
}

/* Read a small file of a process; gives an empty text where there is none. */
static const char *read_process(int pid, const char *name)
{
    static char text[4096];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? 0 : read(file, text, sizeof text - 1);
    text[got < 0 ? 0 : got] = 0;
    close(file);
    return text;
}

/* proc(5), schedstat: the first number is the time on a processor in ns. */
static uint64_t work_of(int pid) { return strtoull(read_process(pid, "schedstat"), NULL, 10); }

uint64_t work_of_server(int pid)
{
    char children[4096], path[64], *rest = children;
    /* Before it has its name it may be whoever has bound the socket. */
    if (strcmp(read_process(pid, "comm"), SERVER_NAME "\n") != 0)
        return 0;
    uint64_t sum = work_of(pid);
    snprintf(path, sizeof path, "task/%d/children", pid);
    strcpy(children, read_process(pid, path));
    for (int child; (child = (int)strtol(rest, &rest, 10)) > 0;)
        sum += work_of(child);
    return sum;
}

void give_up(int pid, uint64_t work)
{
    struct note note = {(uint64_t)pid, work};
    int file = open(path_of_note(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (file >= 0 && write(file, &note, sizeof note) != sizeof note)
        unlink(path_of_note());
    close(file);
}

int is_given_up(void)
{
    struct note note = {0, 0};
    struct stat found;
    int file = open(path_of_note(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return 0;
    int is_read = read(file, &note, sizeof note) == sizeof note && fstat(file, &found) == 0;
    close(file);
    if (is_read && note.work && work_of_server((int)note.pid) == note.work)
        return 1;
    time_t age = is_read ? time(NULL) - found.st_mtime : -1;
    if (is_read && !note.work && age >= 0 && age < GIVEN_UP_S)
        return 1;
    unlink(path_of_note());
    return 0;
}
