/*
 * Plays and records raw samples by the kernel's own interface, as alsa-lib does beneath everything else.
 *
 *   pcm_io play FILE FORMAT CHANNELS RATE PERIOD PERIODS [PAUSE_MS]   PAUSE_MS: pause after a third, drop after two
 *   pcm_io record FILE FORMAT CHANNELS RATE PERIOD PERIODS FRAMES
 *
 * FORMAT is a number of SNDRV_PCM_FORMAT_*, PERIOD is in frames. Says how many milliseconds it took from the first
 * sample to the last, and how often it came too late.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sound/asound.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int late;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static struct snd_interval *interval(struct snd_pcm_hw_params *p, int n) {
  return &p->intervals[n - SNDRV_PCM_HW_PARAM_FIRST_INTERVAL];
}

static void exactly(struct snd_pcm_hw_params *p, int n, unsigned value) {
  interval(p, n)->min = interval(p, n)->max = value;
  interval(p, n)->integer = 1;
}

static void only(struct snd_pcm_hw_params *p, int n, unsigned bit) {
  struct snd_mask *mask = &p->masks[n - SNDRV_PCM_HW_PARAM_FIRST_MASK];
  memset(mask, 0, sizeof *mask);
  mask->bits[bit >> 5] = 1u << (bit & 31);
}

static void configure(int fd, int format, int channels, int rate, int period, int periods, int playing) {
  struct snd_pcm_hw_params p;
  struct snd_pcm_sw_params s;
  memset(&p, 0, sizeof p);
  for (int n = SNDRV_PCM_HW_PARAM_FIRST_MASK; n <= SNDRV_PCM_HW_PARAM_LAST_MASK; n++)
    memset(&p.masks[n - SNDRV_PCM_HW_PARAM_FIRST_MASK], 0xff, sizeof(struct snd_mask));
  for (int n = SNDRV_PCM_HW_PARAM_FIRST_INTERVAL; n <= SNDRV_PCM_HW_PARAM_LAST_INTERVAL; n++)
    interval(&p, n)->max = UINT_MAX;
  p.rmask = ~0u;
  p.info = ~0u;
  only(&p, SNDRV_PCM_HW_PARAM_ACCESS, SNDRV_PCM_ACCESS_RW_INTERLEAVED);
  only(&p, SNDRV_PCM_HW_PARAM_FORMAT, format);
  exactly(&p, SNDRV_PCM_HW_PARAM_CHANNELS, channels);
  exactly(&p, SNDRV_PCM_HW_PARAM_RATE, rate);
  exactly(&p, SNDRV_PCM_HW_PARAM_PERIOD_SIZE, period);
  exactly(&p, SNDRV_PCM_HW_PARAM_PERIODS, periods);
  if (ioctl(fd, SNDRV_PCM_IOCTL_HW_PARAMS, &p)) fail("HW_PARAMS");
  memset(&s, 0, sizeof s);
  s.tstamp_mode = SNDRV_PCM_TSTAMP_ENABLE;
  s.period_step = 1;
  s.avail_min = 1;
  s.start_threshold = playing ? period * periods : 1;
  s.stop_threshold = period * periods;
  s.boundary = period * periods;
  while (s.boundary * 2 <= (unsigned long)LONG_MAX - period * periods) s.boundary *= 2;
  if (ioctl(fd, SNDRV_PCM_IOCTL_SW_PARAMS, &s)) fail("SW_PARAMS");
  if (ioctl(fd, SNDRV_PCM_IOCTL_PREPARE)) fail("PREPARE");
}

static void transfer(int fd, unsigned long how, char *data, long frames, int frame) {
  while (frames > 0) {
    struct snd_xferi x = {.buf = data, .frames = frames};
    if (ioctl(fd, how, &x)) {
      if (errno != EPIPE) fail("transfer");
      late++;
      if (ioctl(fd, SNDRV_PCM_IOCTL_PREPARE)) fail("PREPARE");
      continue;
    }
    data += x.result * frame;
    frames -= x.result;
  }
}

int main(int argc, char **argv) {
  static const int sizes[] = {[SNDRV_PCM_FORMAT_U8] = 1, [SNDRV_PCM_FORMAT_S16_LE] = 2, [SNDRV_PCM_FORMAT_S32_LE] = 4,
    [SNDRV_PCM_FORMAT_FLOAT_LE] = 4, [SNDRV_PCM_FORMAT_FLOAT64_LE] = 8, [SNDRV_PCM_FORMAT_S24_3LE] = 3};
  if (argc < 8) return 2;
  int playing = argv[1][0] == 'p', format = atoi(argv[3]), channels = atoi(argv[4]), rate = atoi(argv[5]);
  int period = atoi(argv[6]), periods = atoi(argv[7]), frame = sizes[format] * channels;
  long extra = argc > 8 ? atol(argv[8]) : 0;
  int fd = open(playing ? "/dev/snd/pcmC0D0p" : "/dev/snd/pcmC0D0c", O_RDWR);
  if (fd < 0) fail("open");
  configure(fd, format, channels, rate, period, periods, playing);
  int file = open(argv[2], playing ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file < 0) fail(argv[2]);
  long frames = playing ? lseek(file, 0, SEEK_END) / frame : extra;
  long whole = playing && !extra ? (frames + period - 1) / period * period : frames;
  char *data = calloc(whole, frame);
  if (playing && pread(file, data, frames * frame, 0) != frames * frame) fail("read");
  long begin = now();
  if (playing && extra) {
    long third = frames / 3;
    transfer(fd, SNDRV_PCM_IOCTL_WRITEI_FRAMES, data, third, frame);
    if (ioctl(fd, SNDRV_PCM_IOCTL_PAUSE, 1)) fail("PAUSE");
    usleep(extra * 1000);
    if (ioctl(fd, SNDRV_PCM_IOCTL_PAUSE, 0)) fail("RESUME");
    transfer(fd, SNDRV_PCM_IOCTL_WRITEI_FRAMES, data + third * frame, third, frame);
    if (ioctl(fd, SNDRV_PCM_IOCTL_DROP)) fail("DROP");
  } else if (playing) {
    /* The driver hands over whole periods only, so programs fill the last one up. */
    transfer(fd, SNDRV_PCM_IOCTL_WRITEI_FRAMES, data, whole, frame);
    if (ioctl(fd, SNDRV_PCM_IOCTL_DRAIN)) fail("DRAIN");
  } else {
    transfer(fd, SNDRV_PCM_IOCTL_READI_FRAMES, data, frames, frame);
  }
  long end = now();
  if (!playing && write(file, data, frames * frame) != frames * frame) fail("write");
  close(fd);
  printf("%ld ms, late %d\n", end - begin, late);
  return 0;
}
