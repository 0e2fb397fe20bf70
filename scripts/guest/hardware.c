/*
 * What tests do with hardware and busybox has no applet for.
 *
 *   hardware erase MTD    erases a flash (/dev/mtdN)
 *   hardware clock PTP    prints what a clock shows (/dev/ptpN), in nanoseconds
 */
#include <fcntl.h>
#include <mtd/mtd-user.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

int main(int argc, char **argv)
{
	int fd = argc == 3 ? open(argv[2], O_RDWR) : -1;

	if (fd < 0) {
		perror(argc == 3 ? argv[2] : "hardware: what?");
		return 2;
	}
	if (!strcmp(argv[1], "erase")) {
		struct mtd_info_user info;
		struct erase_info_user erase = { 0 };

		if (ioctl(fd, MEMGETINFO, &info) == 0) {
			erase.length = info.size;
			if (ioctl(fd, MEMERASE, &erase) == 0)
				return 0;
		}
	} else if (!strcmp(argv[1], "clock")) {
		struct timespec now;

		/* A clock by its descriptor, see clock_gettime(2). */
		if (clock_gettime((~(clockid_t)fd << 3) | 3, &now) == 0) {
			printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
			return 0;
		}
	}
	perror(argv[1]);
	return 1;
}
