/* Who runs this, as the C library resolves it. */
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
  struct passwd *entry = getpwuid(getuid());
  if (!entry) return 1;
  return printf("User: %s\nUid: %d\n", entry->pw_name, (int)entry->pw_uid) < 0;
}
