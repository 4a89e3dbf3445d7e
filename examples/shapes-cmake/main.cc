#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <stdexcept>

#include "shapes.h"

int main(int count, char** words) {
    try {
        double size = count > 1 ? std::atof(words[1]) : 1;
        std::cout << std::fixed << std::setprecision(1) << "circle " << circle(size) << ", square " << square(size) << '\n';
    } catch (const std::invalid_argument& error) {
        std::cerr << "shapes: " << error.what() << '\n';
        return 1;
    }
}
