#include "shapes.h"

#include <numbers>
#include <stdexcept>

static double checked(double size) {
    if (size < 0) throw std::invalid_argument("a length is not negative");
    return size;
}

double circle(double radius) { return std::numbers::pi * checked(radius) * radius; }

double square(double side) { return checked(side) * side; }
