// Package words knows greetings.
package words

var greetings = map[string]string{"de": "Hallo", "es": "Hola"}

// Greeting is the greeting of a language for a name; English if it is not known.
func Greeting(language, name string) string {
	if word, ok := greetings[language]; ok {
		return word + ", " + name
	}
	return "Hello, " + name
}
