// The sandbox process of a pod: waits, reaps what is orphaned, ends on SIGTERM.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) {} }
static void end(int number) { (void)number; _exit(0); }

int main(void) {
  signal(SIGINT, end);
  signal(SIGTERM, end);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
