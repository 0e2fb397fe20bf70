/*
 * A front-end on libblkio that measures. Times are those of CLOCK_MONOTONIC.
 *
 *     blkio load SOCKET QUEUES DEPTH SIZE COUNT read|write
 *         COUNT requests of SIZE bytes on each of QUEUES queues, each by a thread of its own that keeps DEPTH of them
 *         in flight. Prints how long that took, in seconds.
 *     blkio wake SOCKET COUNT PAUSE
 *         COUNT reads of one sector, one at a time, each PAUSE microseconds after the one before is complete. Prints
 *         for each how many microseconds after it was handed over it was complete, and how many after that the disk
 *         says that it began: the first 8 bytes of the data, as nanoseconds; 0 when it does not say.
 *     blkio start SOCKET PROGRAM ARGUMENTS...
 *         Starts a back-end and ends it again. Prints after how many microseconds its socket was there, and after how
 *         many the first read was complete.
 *     blkio hold SOCKET QUEUES
 *         Starts the queues and reads one sector on each, prints a line, and stays until its input ends.
 */
#include <blkio.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512
#define MAX_DEPTH 1024
/* How often to look for a back-end that is starting, and for how long, in microseconds. */
#define LOOK 50
#define PATIENCE 60000000

static struct blkio *disk;
static uint64_t disk_size;
static struct blkio_mem_region memory;

static void fail(const char *what, long result)
{
    fprintf(stderr, "%s: %s: %s\n", what, strerror(result < 0 ? -result : 0), blkio_get_error_msg());
    exit(1);
}

static void check(const char *what, int result)
{
    if (result < 0)
        fail(what, result);
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void pause_for(long microseconds)
{
    struct timespec t = { microseconds / 1000000, microseconds % 1000000 * 1000 };

    while (nanosleep(&t, &t) != 0)
        ;
}

/* Connects and starts the queues, with memory for as many bytes. */
static void open_disk(const char *path, int queues, size_t bytes)
{
    for (int64_t began = now();;) {
        check("create", blkio_create("virtio-blk-vhost-user", &disk));
        check("path", blkio_set_str(disk, "path", path));
        int result = blkio_connect(disk);

        if (result == 0)
            break;
        /* A back-end that is starting has made the socket, but does not listen yet. */
        if (result != -ECONNREFUSED || now() - began > PATIENCE * INT64_C(1000))
            fail("connect", result);
        blkio_destroy(&disk);
        pause_for(LOOK);
    }
    check("num-queues", blkio_set_int(disk, "num-queues", queues));
    check("start", blkio_start(disk));
    check("capacity", blkio_get_uint64(disk, "capacity", &disk_size));
    bytes = (bytes + 65535) / 65536 * 65536;
    check("alloc", blkio_alloc_mem_region(disk, &memory, bytes));
    memset(memory.addr, 0x5a, bytes);
    check("map", blkio_map_mem_region(disk, &memory));
}

/* Waits for `count` requests of a queue; all must succeed. */
static void collect(struct blkioq *q, struct blkio_completion *done, int least, int most, int *count)
{
    int got = blkioq_do_io(q, done, least, most, NULL);

    if (got < least)
        fail("do_io", got);
    for (int i = 0; i < got; i++)
        if (done[i].ret != 0)
            fail("request", done[i].ret);
    *count = got;
}

static int depth, is_write;
static size_t size;
static long count;
static pthread_barrier_t ready;

/* One queue's share: each request uses the buffer of the one whose completion made room for it. */
static void *load_queue(void *argument)
{
    long index = (long)argument;
    struct blkioq *q = blkio_get_queue(disk, index);
    struct blkio_completion done[MAX_DEPTH];
    char *buffers = (char *)memory.addr + index * depth * size;
    uint64_t places = disk_size / size, place = index * (places / 8);
    long issued = 0, complete = 0;
    void *free_buffers[MAX_DEPTH];
    int free_count = 0;

    for (int i = 0; i < depth; i++)
        free_buffers[free_count++] = buffers + i * size;
    pthread_barrier_wait(&ready);
    while (complete < count) {
        while (free_count > 0 && issued < count) {
            void *buffer = free_buffers[--free_count];
            uint64_t at = place++ % places * size;

            if (is_write)
                blkioq_write(q, at, buffer, size, buffer, 0);
            else
                blkioq_read(q, at, buffer, size, buffer, 0);
            issued++;
        }
        int got;
        collect(q, done, 1, depth, &got);
        for (int i = 0; i < got; i++)
            free_buffers[free_count++] = done[i].user_data;
        complete += got;
    }
    pthread_barrier_wait(&ready);
    return NULL;
}

static int load(char **argv)
{
    int queues = atoi(argv[1]);
    pthread_t thread;

    depth = atoi(argv[2]);
    size = strtoul(argv[3], NULL, 10);
    count = atol(argv[4]);
    is_write = strcmp(argv[5], "write") == 0;
    if (queues < 1 || depth < 1 || depth > MAX_DEPTH || size < SECTOR)
        return 2;
    open_disk(argv[0], queues, (size_t)queues * depth * size);
    if (disk_size < size)
        return 2;
    pthread_barrier_init(&ready, NULL, queues + 1);
    for (long i = 0; i < queues; i++)
        check("thread", -pthread_create(&thread, NULL, load_queue, (void *)i));
    pthread_barrier_wait(&ready);
    int64_t began = now();
    pthread_barrier_wait(&ready);
    printf("%.9f\n", (now() - began) / 1e9);
    return 0;
}

/* Reads one sector on a queue. */
static void read_sector(int queue)
{
    struct blkioq *q = blkio_get_queue(disk, queue);
    struct blkio_completion done;
    int got;

    blkioq_read(q, 0, memory.addr, SECTOR, NULL, 0);
    collect(q, &done, 1, 1, &got);
}

static int wake(char **argv)
{
    long pause = atol(argv[2]);
    volatile int64_t *stamp;

    count = atol(argv[1]);
    open_disk(argv[0], 1, SECTOR);
    stamp = memory.addr;
    for (long i = 0; i < count; i++) {
        pause_for(pause);
        *stamp = 0;
        int64_t began = now();
        read_sector(0);
        int64_t done = now();
        printf("%.3f %.3f\n", (done - began) / 1e3, *stamp == 0 ? 0 : (*stamp - began) / 1e3);
    }
    return 0;
}

static pid_t child;

static void end_child(void)
{
    int status;

    kill(child, SIGTERM);
    waitpid(child, &status, 0);
}

static int start(char **argv)
{
    struct stat file;
    int64_t began = now();

    child = fork();
    check("fork", child);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(2, 1);
        execvp(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    atexit(end_child);
    while (stat(argv[0], &file) != 0 || !S_ISSOCK(file.st_mode)) {
        if (waitpid(child, NULL, WNOHANG) != 0 || now() - began > PATIENCE * INT64_C(1000)) {
            fprintf(stderr, "%s: no socket\n", argv[1]);
            return 1;
        }
        pause_for(LOOK);
    }
    double there = (now() - began) / 1e3;
    open_disk(argv[0], 1, SECTOR);
    read_sector(0);
    printf("%.1f %.1f\n", there, (now() - began) / 1e3);
    blkio_destroy(&disk);
    return 0;
}

static int hold(char **argv)
{
    int queues = atoi(argv[1]);

    open_disk(argv[0], queues, SECTOR);
    for (int i = 0; i < queues; i++)
        read_sector(i);
    puts("holding");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    int result = 2;

    /* A pause is as long as was asked for; usually 50 microseconds come on top. */
    prctl(PR_SET_TIMERSLACK, 1);
    if (strcmp(what, "load") == 0 && argc == 8)
        result = load(argv + 2);
    else if (strcmp(what, "wake") == 0 && argc == 5)
        result = wake(argv + 2);
    else if (strcmp(what, "start") == 0 && argc > 3)
        result = start(argv + 2);
    else if (strcmp(what, "hold") == 0 && argc == 4)
        result = hold(argv + 2);
    if (result == 2)
        fprintf(stderr, "blkio: wrong arguments; the source says what they are\n");
    return result;
}
