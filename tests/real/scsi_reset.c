/* Resets a logical unit: scsi_reset /dev/sdX. Ends with 0 when the host says that it has. */
#include <fcntl.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(int argc, char **argv) {
  int how = SG_SCSI_RESET_DEVICE;
  int fd = open(argc > 1 ? argv[1] : "/dev/sda", O_RDWR | O_NONBLOCK);
  if (fd >= 0 && ioctl(fd, SG_SCSI_RESET, &how) == 0) return 0;
  perror("scsi_reset");
  return 1;
}
