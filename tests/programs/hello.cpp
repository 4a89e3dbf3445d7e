// What a program of C++ asks of its libraries: exceptions, threads, OpenMP, streams.
#include <iostream>
#include <stdexcept>
#include <thread>
#include <vector>

int main() {
    try {
        throw std::runtime_error("caught");
    } catch (const std::exception &error) {
        std::cout << error.what() << std::endl;
    }
    std::vector<std::thread> threads;
    std::vector<int> squares(4);
    for (int n = 0; n < 4; n++) threads.emplace_back([&squares, n] { squares[n] = n * n; });
    for (auto &one : threads) one.join();
    long total = 0;
#pragma omp parallel for reduction(+ : total)
    for (int n = 0; n < 1000; n++) total += n;
    std::cout << squares[3] << " " << total << std::endl;
}
