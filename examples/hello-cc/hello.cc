#include <algorithm>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

// Says hello to each argument, sorted; an empty name is an error that is thrown and caught.
int main(int argc, char **argv) {
  std::vector<std::string> names(argv + 1, argv + argc);
  if (names.empty()) names.push_back("world");
  std::sort(names.begin(), names.end());
  try {
    for (const auto &name : names) {
      if (name.empty()) throw std::invalid_argument("a name is empty");
      std::cout << "Hello, " << name << "!\n";
    }
  } catch (const std::exception &error) {
    std::cerr << "hello: " << error.what() << "\n";
    return 1;
  }
}
