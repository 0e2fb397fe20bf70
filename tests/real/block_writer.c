/*
 * block_writer DEVICE BLOCKS DEPTH FILE: writes numbered blocks past the cache, DEPTH at once, until FILE exists, and reads
 * some back. No two writes of the same block are under way at once, so each block has to hold what was acknowledged last.
 * Says "BLOCK NUMBER" for each write that was acknowledged, and at the end, when all blocks were read again, "verified N".
 *
 * A block is 64-bit words: magic, block, number, and words that follow from these.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIZE = 4096, WORDS = SIZE / 8, MOST = 64 };
#define MAGIC 0x6b636f6c62757276ull

static uint64_t random_state = 1;

static unsigned next_random(void) {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return random_state >> 33;
}

static void fill(uint64_t *words, uint64_t block, uint64_t number) {
  words[0] = MAGIC;
  words[1] = block;
  words[2] = number;
  uint64_t x = block * 1000003 + number;
  for (int i = 3; i < WORDS; i++) words[i] = x = x * 6364136223846793005ull + 1442695040888963407ull;
}

static void check(const uint64_t *found, uint64_t block, uint64_t number) {
  uint64_t expected[WORDS];
  fill(expected, block, number);
  if (number == 0) memset(expected, 0, SIZE);
  if (memcmp(found, expected, SIZE) == 0) return;
  printf("wrong: block %llu must be of write %llu, has magic %llx, block %llu, write %llu\n",
         (unsigned long long)block, (unsigned long long)number, (unsigned long long)found[0],
         (unsigned long long)found[1], (unsigned long long)found[2]);
  exit(1);
}

static void fail(const char *what) {
  printf("failed: %s: %m\n", what);
  exit(2);
}

int main(int argc, char **argv) {
  if (argc != 5) return 3;
  unsigned blocks = atoi(argv[2]), depth = atoi(argv[3]);
  if (depth < 1 || depth > MOST || blocks < depth) return 3;
  int fd = open(argv[1], O_RDWR | O_DIRECT);
  if (fd < 0) fail("open");
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, depth, &context) < 0) fail("io_setup");

  uint64_t *last = calloc(blocks, sizeof *last);
  char *busy = calloc(blocks, 1);
  struct iocb jobs[MOST] = {0};
  uint64_t *buffers[MOST], numbers[MOST], number = 0, writes = 0;
  for (unsigned i = 0; i < depth; i++) {
    if (posix_memalign((void **)&buffers[i], SIZE, SIZE)) fail("memory");
    jobs[i].aio_data = i;
    jobs[i].aio_fildes = fd;
    jobs[i].aio_buf = (uintptr_t)buffers[i];
    jobs[i].aio_nbytes = SIZE;
  }

  unsigned waiting = depth, under_way = 0, list[MOST];
  for (unsigned i = 0; i < depth; i++) list[i] = i;
  for (;;) {
    int stop = access(argv[4], F_OK) == 0;
    while (waiting > 0 && !stop) {
      unsigned i = list[--waiting], block;
      do block = next_random() % blocks; while (busy[block]);
      busy[block] = 1;
      int reads = next_random() % 4 == 0;
      jobs[i].aio_lio_opcode = reads ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
      jobs[i].aio_offset = (uint64_t)block * SIZE;
      numbers[i] = reads ? last[block] : ++number;
      if (!reads) fill(buffers[i], block, number);
      struct iocb *job = &jobs[i];
      if (syscall(SYS_io_submit, context, 1, &job) != 1) fail("io_submit");
      under_way++;
    }
    if (under_way == 0) break;
    struct io_event events[MOST];
    int done = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
    if (done < 1) fail("io_getevents");
    for (int e = 0; e < done; e++) {
      unsigned i = events[e].data;
      uint64_t block = jobs[i].aio_offset / SIZE;
      if (events[e].res != SIZE) fail("a request");
      if (jobs[i].aio_lio_opcode == IOCB_CMD_PREAD) {
        check(buffers[i], block, numbers[i]);
      } else {
        last[block] = numbers[i];
        writes++;
        printf("%llu %llu\n", (unsigned long long)block, (unsigned long long)numbers[i]);
      }
      busy[block] = 0;
      list[waiting++] = i;
      under_way--;
    }
    fflush(stdout);
  }
  for (unsigned block = 0; block < blocks; block++) {
    if (pread(fd, buffers[0], SIZE, (off_t)block * SIZE) != SIZE) fail("pread");
    check(buffers[0], block, last[block]);
  }
  printf("verified %llu\n", (unsigned long long)writes);
  return 0;
}
