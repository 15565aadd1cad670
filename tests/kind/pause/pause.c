// The sandbox container: keeps a pod's namespaces alive, reaps orphaned processes, and exits on SIGTERM.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal) {
	(void)signal;
	_exit(0);
}

static void collect(int signal) {
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0) {
	}
}

int main(void) {
	struct sigaction on_end = {.sa_handler = leave};
	struct sigaction on_child = {.sa_handler = collect, .sa_flags = SA_NOCLDSTOP};
	if (sigaction(SIGINT, &on_end, NULL) || sigaction(SIGTERM, &on_end, NULL) || sigaction(SIGCHLD, &on_child, NULL))
		return 1;
	for (;;)
		pause();
}
