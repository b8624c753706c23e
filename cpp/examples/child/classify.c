/* Keeps `convship-run predict MODEL -` as a child process: a line out, a line
 * back. Needs nothing of convship but the program, so it can be in any language.
 * classify CONVSHIP-RUN MODEL IMAGE... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
  pid_t process;
  FILE* to;
  FILE* from;
};

static struct child start(const char* program, const char* model) {
  int in[2], out[2];
  if (pipe(in) != 0 || pipe(out) != 0) {
    perror("pipe");
    exit(5);
  }
  const struct child child = {fork(), fdopen(in[1], "w"), fdopen(out[0], "r")};
  if (child.process == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    /* The child must not hold its own input open: it would never end. */
    close(in[1]);
    close(out[0]);
    execlp(program, program, "predict", model, "-", (char*)NULL);
    perror(program);
    _exit(5);
  }
  close(in[0]);
  close(out[1]);
  return child;
}

/* The answer to one image, a line of JSON; NULL when the child has ended. */
static char* ask(struct child child, const char* image, char* reply, int size) {
  if (fprintf(child.to, "%s\n", image) < 0 || fflush(child.to) != 0) return NULL;
  return fgets(reply, size, child.from);
}

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: classify CONVSHIP-RUN MODEL IMAGE...\n");
    return 2;
  }
  const struct child child = start(argv[1], argv[2]);
  char reply[65536];
  for (int i = 3; i < argc; ++i) {
    if (ask(child, argv[i], reply, sizeof reply) == NULL) break;
    fputs(reply, stdout);
  }
  fclose(child.to); /* the child ends where its input does */
  int status = 0;
  waitpid(child.process, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 5;
}
