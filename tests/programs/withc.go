package main

/*
#cgo LDFLAGS: -lm
#include <gnu/libc-version.h>
#include <math.h>
#include <pwd.h>
extern int called(int);
static int calls(int n) { return called(n) + 1; }
static const char *name_of(int uid) { struct passwd *found = getpwuid(uid); return found ? found->pw_name : "?"; }
*/
import "C"

import "fmt"

//export called
func called(n C.int) C.int { return n * 10 }

func main() {
	fmt.Println("root", float64(C.sqrt(2)) > 1.414, "calls", C.calls(4), "user", C.GoString(C.name_of(65532)))
	fmt.Println("glibc", C.GoString(C.gnu_get_libc_version()))
}
