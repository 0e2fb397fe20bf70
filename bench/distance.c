// How far two processors are from each other: nanoseconds for a word to go from one to the other and back, at the best of
// many. Usage: distance CPU CPU

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TRIPS = 1000, ROUNDS = 200 };

static _Atomic int word __attribute__((aligned(128)));

static void run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    perror("sched_setaffinity");
    exit(1);
  }
}

static void *answer(void *cpu) {
  run_on(*(int *)cpu);
  for (int i = 0; i < TRIPS * ROUNDS; i++) {
    while (atomic_load_explicit(&word, memory_order_acquire) != 2 * i + 1);
    atomic_store_explicit(&word, 2 * i + 2, memory_order_release);
  }
  return NULL;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  int other = atoi(argv[2]);
  pthread_t thread;
  if (pthread_create(&thread, NULL, answer, &other) != 0) return 1;
  run_on(atoi(argv[1]));
  double best = 1e12;
  for (int round = 0; round < ROUNDS; round++) {
    double start = now();
    for (int trip = 0; trip < TRIPS; trip++) {
      int i = round * TRIPS + trip;
      atomic_store_explicit(&word, 2 * i + 1, memory_order_release);
      while (atomic_load_explicit(&word, memory_order_acquire) != 2 * i + 2);
    }
    double each = (now() - start) / TRIPS;
    if (each < best) best = each;
  }
  pthread_join(thread, NULL);
  printf("%.0f\n", best);
  return 0;
}
