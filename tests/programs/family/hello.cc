#include <iostream>
#include <stdexcept>

int main() {
  try {
    throw std::runtime_error("Hello from distroless C++!");
  } catch (const std::exception &error) {
    std::cout << error.what() << std::endl;
  }
}
