/*
 * A front-end on libblkio that uses several queues at once:
 *
 *     blkio_queues SOCKET QUEUES ROUNDS SEED
 *
 * In each round it writes the whole disk, in blocks of another size each time, block by block on one queue after
 * the other and many on each before it waits for any; flushes on one queue; and reads every block back on another
 * queue than the one it was written on. In the end it asks for what is not there, which the disk must refuse.
 *
 * The 32-bit word at byte p of the disk is then (p / 4 * 2654435761) ^ (SEED + ROUNDS - 1).
 */
#include <blkio.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Requests on each queue before waiting. */
#define DEPTH 24

static const size_t block_sizes[] = { 4096, 512, 65536, 1536, 12800 };

static struct blkio *disk;
static int queues;

static void fail(const char *what, long result)
{
    fprintf(stderr, "%s: %ld: %s\n", what, result, blkio_get_error_msg());
    exit(1);
}

static void check(const char *what, int result)
{
    if (result < 0)
        fail(what, result);
}

/* Waits for `count` requests of a queue; all must succeed. */
static void collect(int queue, int count)
{
    struct blkio_completion completions[DEPTH];
    int got = blkioq_do_io(blkio_get_queue(disk, queue), completions, count, count, NULL);

    if (got != count)
        fail("blkioq_do_io", got);
    for (int i = 0; i < count; i++)
        if (completions[i].ret != 0)
            fail("request", completions[i].ret);
}

/* Moves all of the disk; block n goes over queue n + shift. */
static void transfer(int is_write, char *buffer, size_t size, size_t block, int shift)
{
    int waiting[256] = { 0 };

    for (size_t at = 0, n = 0; at < size; n++) {
        int queue = (n + shift) % queues;
        struct blkioq *q = blkio_get_queue(disk, queue);
        size_t length = size - at < block ? size - at : block;

        if (is_write)
            blkioq_write(q, at, buffer + at, length, NULL, 0);
        else
            blkioq_read(q, at, buffer + at, length, NULL, 0);
        waiting[queue]++;
        at += length;
        if (at < size && (n + 1) % (DEPTH * (size_t)queues) != 0)
            continue;
        /* First all queues get their work, then each is waited for. */
        for (int i = 0; i < queues; i++)
            check("submit", blkioq_do_io(blkio_get_queue(disk, i), NULL, 0, 0, NULL));
        for (int i = 0; i < queues; i++) {
            collect(i, waiting[i]);
            waiting[i] = 0;
        }
    }
}

/* One request at `start`, which the disk must refuse. */
static void must_fail(int is_write, uint64_t start, char *buffer, size_t length)
{
    struct blkioq *q = blkio_get_queue(disk, 0);
    struct blkio_completion completion;

    if (is_write)
        blkioq_write(q, start, buffer, length, NULL, 0);
    else
        blkioq_read(q, start, buffer, length, NULL, 0);
    check("blkioq_do_io", blkioq_do_io(q, &completion, 1, 1, NULL));
    if (completion.ret != -EIO)
        fail("request beyond the end", completion.ret);
}

int main(int argc, char **argv)
{
    struct blkio_mem_region region;
    uint64_t size;
    int most;

    if (argc != 5)
        return 2;
    queues = atoi(argv[2]);
    int rounds = atoi(argv[3]);
    uint32_t seed = strtoul(argv[4], NULL, 10);

    check("create", blkio_create("virtio-blk-vhost-user", &disk));
    check("path", blkio_set_str(disk, "path", argv[1]));
    check("connect", blkio_connect(disk));
    check("max-queues", blkio_get_int(disk, "max-queues", &most));
    check("num-queues", blkio_set_int(disk, "num-queues", queues));
    check("start", blkio_start(disk));
    check("capacity", blkio_get_uint64(disk, "capacity", &size));
    check("alloc", blkio_alloc_mem_region(disk, &region, 2 * size));
    check("map", blkio_map_mem_region(disk, &region));

    char *data = region.addr;
    char *back = data + size;
    uint32_t *words = region.addr;

    for (int round = 0; round < rounds; round++) {
        size_t block = block_sizes[round % (sizeof(block_sizes) / sizeof(*block_sizes))];

        for (size_t i = 0; i < size / 4; i++)
            words[i] = (uint32_t)i * 2654435761u ^ (seed + round);
        transfer(1, data, size, block, round);
        blkioq_flush(blkio_get_queue(disk, round % queues), NULL, 0);
        collect(round % queues, 1);
        memset(back, 0xa5, size);
        transfer(0, back, size, block, round + 1);
        if (memcmp(data, back, size) != 0) {
            fprintf(stderr, "round %d: what was read is not what was written\n", round);
            return 1;
        }
    }

    must_fail(1, size, data, 4096);
    must_fail(0, size, data, 512);
    must_fail(1, size - 512, data, 1024);
    must_fail(1, UINT64_MAX / 512 * 512, data, 512);
    printf("max-queues %d, capacity %llu\n", most, (unsigned long long)size);
    blkio_destroy(&disk);
    return 0;
}
