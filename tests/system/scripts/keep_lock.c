/* keep_lock FOLDER CONNECTIONS GO: connects while another of its threads keeps the lock of its memory, so that nobody can
 * read its arguments, until the file GO is there. Mapping over a page of a file on FUSE that was written to sends that
 * write under the lock (fs/fuse/file.c, fuse_vma_close); it is never answered. Says `connected`. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_ID 2
static char path[4096];

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static void reply(int fuse, uint64_t unique, int error, const void *body, size_t size)
{
	static char answer[65536];
	struct fuse_out_header head = { .len = sizeof head + size, .error = -error, .unique = unique };
	memcpy(answer, &head, sizeof head);
	if (size)
		memcpy(answer + sizeof head, body, size);
	if (write(fuse, answer, head.len) < 0)
		perror("answering");
}

static struct fuse_attr attributes(uint64_t node)
{
	struct fuse_attr attr = { .ino = node, .nlink = 1, .blksize = 4096 };
	attr.mode = node == FILE_ID ? S_IFREG | 0644 : S_IFDIR | 0755;
	attr.size = node == FILE_ID ? 4096 : 0;
	return attr;
}

/* Tells `held` of the first write, and answers none. */
static void serve(int fuse, int held)
{
	static char request[1 << 20], page[4096];
	for (;;) {
		ssize_t size = read(fuse, request, sizeof request);
		if (size < 0)
			fail("reading from /dev/fuse");
		struct fuse_in_header *head = (void *)request;
		uint64_t unique = head->unique;
		struct fuse_init_out init = { .major = 7, .minor = 31, .max_write = 4096, .max_readahead = 4096 };
		struct fuse_entry_out entry = { .nodeid = FILE_ID, .attr_valid = 3600, .entry_valid = 3600 };
		struct fuse_attr_out attr = { .attr_valid = 3600, .attr = attributes(head->nodeid) };
		struct fuse_open_out opened = { 0 };
		switch (head->opcode) {
		case FUSE_INIT: reply(fuse, unique, 0, &init, sizeof init); break;
		case FUSE_LOOKUP:
			entry.attr = attributes(FILE_ID);
			reply(fuse, unique, 0, &entry, sizeof entry);
			break;
		case FUSE_GETATTR:
		case FUSE_SETATTR: reply(fuse, unique, 0, &attr, sizeof attr); break;
		case FUSE_OPEN: reply(fuse, unique, 0, &opened, sizeof opened); break;
		case FUSE_READ: reply(fuse, unique, 0, page, sizeof page); break;
		case FUSE_WRITE:
			if (write(held, "x", 1) != 1)
				fail("telling of the write");
			break;
		case FUSE_FORGET: break;
		default: reply(fuse, unique, ENOSYS, 0, 0);
		}
	}
}

static void *keep(void *nothing)
{
	int file = open(path, O_RDWR);
	char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (file < 0 || page == MAP_FAILED)
		fail(path);
	page[0] = 'x';
	mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return nothing;
}

int main(int count, char **arguments)
{
	if (count != 4)
		return 2;
	int connections = atoi(arguments[2]), sockets[64], held[2], connected[2], fuse = open("/dev/fuse", O_RDWR);
	char options[100], byte;
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	if (fuse < 0 || mount("keep_lock", arguments[1], "fuse", 0, options))
		fail("mounting");
	snprintf(path, sizeof path, "%s/file", arguments[1]);
	if (connections > 64 || pipe(held) || pipe(connected))
		fail("pipes");
	pid_t server = fork(), guard = server ? fork() : 0;
	if (server == 0)
		serve(fuse, held[1]);
	if (guard == 0) {
		close(connected[1]);
		if (read(connected[0], &byte, 1) == 1)
			puts("connected");
		fflush(stdout);
		while (access(arguments[3], F_OK))
			usleep(50000);
		/* With the last descriptor of its own, the filesystem is gone, and the lock is free. */
		kill(server, SIGKILL);
		kill(getppid(), SIGKILL);
		umount2(arguments[1], MNT_DETACH);
		_exit(0);
	}
	close(fuse);
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(443) };
	inet_pton(AF_INET, "127.77.0.1", &to.sin_addr);
	for (int i = 0; i < connections; i++)
		sockets[i] = socket(AF_INET, SOCK_STREAM, 0);
	/* From the write on nothing of this process may fault: that takes the lock, too. */
	if (mlockall(MCL_CURRENT))
		fail("keeping all of it in memory");
	pthread_t thread;
	pthread_create(&thread, 0, keep, 0);
	if (read(held[0], &byte, 1) != 1)
		fail("waiting for the write");
	for (int i = 0; i < connections; i++)
		connect(sockets[i], (void *)&to, sizeof to);
	write(connected[1], &byte, 1);
	for (;;)
		pause();
}
