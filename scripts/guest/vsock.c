/*
 * The guest's end of a connection over vsock, for tests:
 *
 *   vsock [-s] [-n COUNT] [-b BYTES] connect CID PORT ACTION...   COUNT connections, one after another
 *   vsock [-s] [-n COUNT] [-b BYTES] listen PORT ACTION...        the same with those that come; returns when it listens
 *
 * -s: SOCK_SEQPACKET. -b: bytes that are sent at once, 512 KiB by default. Actions, in order, on each connection:
 *
 *   send:N, recv:N   N bytes of the pattern, N a multiple of 4: the 32-bit word number i is i * 2654435761
 *   msg:N, getmsg    a message of N bytes of the pattern; prints the length of one that comes
 *   echo             sends back what comes, until the end
 *   drain            prints the number of bytes that come until the end
 *   text:T, gettext  some text; prints what comes until the end
 *   shut, end        shutdown(SHUT_WR); the peer must have done the same
 *   fill             sends until nothing more is taken, prints the number of bytes
 *   sleep:MS         waits
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>

static uint32_t buffer[1 << 17];
static size_t step = sizeof buffer;

static void die(const char *what) {
  printf("%s: %s\n", what, strerror(errno));
  exit(1);
}

static void fail(const char *what, long long at) {
  printf("%s at %lld\n", what, at);
  exit(1);
}

static void fill(uint32_t word, size_t words) {
  for (size_t i = 0; i < words; i++) buffer[i] = (word + (uint32_t)i) * 2654435761u;
}

static int same(uint32_t word, size_t words) {
  for (size_t i = 0; i < words; i++)
    if (buffer[i] != (word + (uint32_t)i) * 2654435761u) return 0;
  return 1;
}

static void put(int fd, const void *from, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t n = send(fd, (const char *)from + done, length - done, MSG_NOSIGNAL);
    if (n < 0) die("send");
    done += n;
  }
}

static void act(int fd, const char *action) {
  const char *colon = strchr(action, ':');
  size_t name = colon ? (size_t)(colon - action) : strlen(action);
  long long number = colon ? atoll(colon + 1) : 0;
#define IS(text) (name == strlen(text) && !strncmp(action, text, name))
  if (IS("send")) {
    for (long long done = 0; done < number;) {
      size_t size = number - done < (long long)step ? number - done : step;
      fill(done / 4, size / 4);
      put(fd, buffer, size);
      done += size;
    }
  } else if (IS("recv")) {
    for (long long done = 0; done < number;) {
      size_t size = number - done < (long long)sizeof buffer ? number - done : sizeof buffer, got = 0;
      while (got < size) {
        ssize_t n = recv(fd, (char *)buffer + got, size - got, 0);
        if (n < 0) die("recv");
        if (n == 0) fail("the end", done + got);
        got += n;
      }
      if (!same(done / 4, size / 4)) fail("wrong bytes", done);
      done += size;
    }
  } else if (IS("msg")) {
    fill(0, (number + 3) / 4);
    ssize_t n = send(fd, buffer, number, MSG_NOSIGNAL | MSG_EOR);
    if (n != number) die("send");
  } else if (IS("getmsg")) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0) die("recv");
    if (!same(0, n / 4)) fail("wrong bytes", 0);
    printf("%zd\n", n);
  } else if (IS("echo")) {
    for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) != 0;) {
      if (n < 0) die("recv");
      put(fd, buffer, n);
    }
  } else if (IS("drain")) {
    long long sum = 0;
    for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) != 0; sum += n)
      if (n < 0) die("recv");
    printf("%lld\n", sum);
  } else if (IS("text")) {
    put(fd, colon + 1, strlen(colon + 1));
  } else if (IS("gettext")) {
    for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) != 0;) {
      if (n < 0) die("recv");
      fwrite(buffer, 1, n, stdout);
    }
    puts("");
  } else if (IS("shut")) {
    if (shutdown(fd, SHUT_WR)) die("shutdown");
  } else if (IS("end")) {
    ssize_t n = recv(fd, buffer, 1, 0);
    if (n < 0) die("recv");
    if (n != 0) fail("more than the end", 0);
  } else if (IS("fill")) {
    long long sum = 0;
    for (ssize_t n; (n = send(fd, buffer, 4096, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0;) sum += n;
    if (errno != EAGAIN) die("send");
    printf("%lld\n", sum);
  } else if (IS("sleep")) {
    usleep(number * 1000);
  } else {
    fail(action, -1);
  }
  fflush(stdout);
}

int main(int argc, char **argv) {
  int type = SOCK_STREAM, count = 1, option;
  while ((option = getopt(argc, argv, "+sn:b:")) != -1) {
    if (option == 's') type = SOCK_SEQPACKET;
    else if (option == 'n') count = atoi(optarg);
    else if (option == 'b') step = atoi(optarg);
    else return 2;
  }
  if (step < 4 || step > sizeof buffer || step % 4) return 2;
  argv += optind;
  int listens = argv[0] && !strcmp(argv[0], "listen");
  if (!argv[0] || !argv[1] || (!listens && !argv[2])) return 2;
  struct sockaddr_vm address = { .svm_family = AF_VSOCK };
  address.svm_cid = listens ? VMADDR_CID_ANY : strtoul(argv[1], 0, 0);
  address.svm_port = strtoul(argv[listens ? 1 : 2], 0, 0);
  argv += listens ? 2 : 3;
  int listener = -1;
  if (listens) {
    listener = socket(AF_VSOCK, type, 0);
    if (listener < 0) die("socket");
    if (bind(listener, (struct sockaddr *)&address, sizeof address)) die("bind");
    if (listen(listener, 128)) die("listen");
    if (fork() > 0) return 0;
  }
  for (int i = 0; i < count; i++) {
    int fd;
    if (listens) {
      fd = accept(listener, 0, 0);
      if (fd < 0) die("accept");
    } else {
      fd = socket(AF_VSOCK, type, 0);
      if (fd < 0) die("socket");
      if (connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    }
    for (char **action = argv; *action; action++) act(fd, *action);
    close(fd);
  }
  return 0;
}
