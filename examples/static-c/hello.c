#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

/* Says hello with the name of the user it runs as: "nonroot" in the final image. */
int main(void) {
  const struct passwd *user = getpwuid(getuid());
  printf("Hello from %s (%d)!\n", user ? user->pw_name : "an unknown user", (int)getuid());
  return 0;
}
